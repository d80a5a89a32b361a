// leaky_ext._C: entry points for plain eager calls, and build information. The operators are torch.ops.leaky_ext.*.
#include <ATen/TracerMode.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

#include "kernels.h"
#include "operators.h"

namespace leaky_ext {
namespace {

namespace py = pybind11;
using at::Tensor;

PyTypeObject *parameter_type = nullptr, *module_type = nullptr;
PyObject* module_getattr = nullptr;

// Returns true for a tensor that is of no subclass and not nested. It may be in a transform: the dispatcher handles that.
bool is_plain(PyObject* object) {
  const PyTypeObject* type = Py_TYPE(object);
  if (type != reinterpret_cast<PyTypeObject*>(THPVariableClass) && type != parameter_type) return false;
  return !THPVariable_Unpack(object).is_nested();
}

// Returns true if no tracer and no mode of __torch_function__ or __torch_dispatch__ is active.
bool is_eager() {
  return !at::impl::torch_function_mode_enabled() && !at::tracer::impl::is_dispatch_enabled() &&
         !c10::impl::TorchDispatchModeTLS::any_modes_set();
}

struct Bounds {
  double low, high;
};

// Runs an eager call without the argument parsing of pybind11 or torch.ops: 2 us less of 13 for forward and backward of
// 100 elements. Returns NotImplemented for any other call; Python then handles it.
PyObject* call(PyObject* x_object, PyObject* slope, std::optional<Bounds> bounds, PyObject* channel_dim,
               PyObject* formula, bool in_place) {
  if (!is_plain(x_object) || !PyLong_CheckExact(channel_dim) || !is_eager()) Py_RETURN_NOTIMPLEMENTED;
  OptionalTensor alpha;
  double value = 0;
  if (PyFloat_CheckExact(slope)) {
    value = PyFloat_AS_DOUBLE(slope);
  } else if (is_plain(slope)) {
    alpha = THPVariable_Unpack(slope);
  } else {
    Py_RETURN_NOTIMPLEMENTED;
  }
  const int64_t channel = PyLong_AsLongLong(channel_dim), number = PyLong_AsLongLong(formula);
  if (PyErr_Occurred()) return nullptr;
  const Tensor& x = THPVariable_Unpack(x_object);
  Tensor y;
  {
    const py::gil_scoped_release no_gil;
    if (bounds && alpha) alpha = operators::ClampSlope::call(*alpha, bounds->low, bounds->high);
    y = in_place ? operators::Forward_::call(x, alpha, value, channel, number)
                 : operators::Forward::call(x, alpha, value, channel, number);
  }
  return THPVariable_Wrap(std::move(y));
}

// activation(x, alpha, channel_dim, formula, in_place), positional.
PyObject* activation(PyObject*, PyObject* const* args, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  if (count != 5) Py_RETURN_NOTIMPLEMENTED;
  return call(args[0], args[1], std::nullopt, args[2], args[3], args[4] == Py_True);
  END_HANDLE_TH_ERRORS
}

// Returns an item of a dict, or null. Returns null for a subclass of dict, which may override lookup.
py::object item(const py::handle dict, PyObject* key) {
  PyObject* found = dict && key && PyDict_CheckExact(dict.ptr()) ? PyDict_GetItemWithError(dict.ptr(), key) : nullptr;
  return py::reinterpret_borrow<py::object>(found);
}

// Returns the alpha_bounds of a module, or nothing if they are not a tuple of two floats.
std::optional<Bounds> bounds_of(const py::handle pair) {
  PyObject* const tuple = pair.ptr();
  const bool valid = PyTuple_CheckExact(tuple) && PyTuple_GET_SIZE(tuple) == 2 &&
                     PyFloat_CheckExact(PyTuple_GET_ITEM(tuple, 0)) && PyFloat_CheckExact(PyTuple_GET_ITEM(tuple, 1));
  if (!valid) return std::nullopt;
  return Bounds{PyFloat_AS_DOUBLE(PyTuple_GET_ITEM(tuple, 0)), PyFloat_AS_DOUBLE(PyTuple_GET_ITEM(tuple, 1))};
}

// module_activation(x, module), positional: calls a module of modules.py. In Python, each attribute takes 40 ns, as
// nn.Module has a __getattr__, and a parameter 600 ns. Returns NotImplemented for subclasses, which may override any
// attribute: `formulas` must be in the dict of the class itself. Does the same while torch.fx traces: the slope becomes
// a node of the graph in nn.Module.__getattr__, which torch.fx replaces.
PyObject* module_activation(PyObject*, PyObject* const* args, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  static PyObject* const names[] = {
      PyUnicode_InternFromString("slope_name"),  PyUnicode_InternFromString("formulas"),
      PyUnicode_InternFromString("_parameters"), PyUnicode_InternFromString("alpha_bounds"),
      PyUnicode_InternFromString("channel_dim"), PyUnicode_InternFromString("inplace"),
      PyUnicode_InternFromString("save"),        PyUnicode_InternFromString("input")};
  const auto [slope_name, formulas, parameters, alpha_bounds, dim, inplace, save, input] = names;
  static PyObject* const getattr = PyUnicode_InternFromString("__getattr__");
  if (count != 2 || item(module_type->tp_dict, getattr).ptr() != module_getattr) Py_RETURN_NOTIMPLEMENTED;
  PyTypeObject* const type = Py_TYPE(args[1]);
  const py::object numbers = item(type->tp_dict, formulas);
  if (!numbers) Py_RETURN_NOTIMPLEMENTED;
  const auto vars = py::reinterpret_steal<py::object>(PyObject_GenericGetDict(args[1], nullptr));
  const auto name = py::reinterpret_steal<py::object>(PyObject_GetAttr(reinterpret_cast<PyObject*>(type), slope_name));
  py::object slope = item(vars, name.ptr());  // a float
  if (!slope) slope = item(item(vars, parameters), name.ptr());
  const py::object flag = item(vars, inplace), channel_dim = item(vars, dim), pair = item(vars, alpha_bounds);
  const py::object formula = item(numbers, flag.ptr() == Py_True ? input : item(vars, save).ptr());
  if (PyErr_Occurred()) PyErr_Clear();  // an attribute has a wrong type: Python raises the error
  if (!slope || !formula || !pair || !channel_dim || !flag || !PyBool_Check(flag.ptr())) Py_RETURN_NOTIMPLEMENTED;
  const std::optional<Bounds> bounds = bounds_of(pair);
  if (!bounds && pair.ptr() != Py_None) Py_RETURN_NOTIMPLEMENTED;
  return call(args[0], slope.ptr(), bounds, channel_dim.ptr(), formula.ptr(), flag.ptr() == Py_True);
  END_HANDLE_TH_ERRORS
}

PyMethodDef functions[] = {
    {"activation", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(activation)), METH_FASTCALL,
     "activation(x, alpha, channel_dim, formula, in_place)"},
    {"module_activation", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(module_activation)), METH_FASTCALL,
     "module_activation(x, module)"},
};

py::dict build_info() {
  py::dict info;
  info["torch"] = LEAKY_TORCH;
#if defined(LEAKY_WITH_CUDA)
  info["cuda"] = true;
#else
  info["cuda"] = false;
#endif
  info["cuda_architectures"] = LEAKY_CUDA_ARCHITECTURES;
  info["instruction_set"] = cpu::instruction_set();
  info["compiler"] = __VERSION__;
  return info;
}

}  // namespace
}  // namespace leaky_ext

PYBIND11_MODULE(_C, m) {
  using namespace leaky_ext;
  const py::object nn = py::module_::import("torch.nn");
  parameter_type = reinterpret_cast<PyTypeObject*>(py::object(nn.attr("Parameter")).release().ptr());
  module_type = reinterpret_cast<PyTypeObject*>(py::object(nn.attr("Module")).release().ptr());
  module_getattr = py::object(nn.attr("Module").attr("__getattr__")).release().ptr();
  for (PyMethodDef& function : functions) {
    m.add_object(function.ml_name, py::reinterpret_steal<py::object>(PyCFunction_New(&function, nullptr)));
  }
  m.def("build_info", build_info);
}
