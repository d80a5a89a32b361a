// The base of the nodes: what they save, and how autograd and compiled autograd read it.
#pragma once

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/dynamo/compiled_autograd.h>

#include <array>

#include "operators.h"

namespace leaky_ext::autograd {

using torch::autograd::Node;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

// A node is held by a shared_ptr up to torch 2.12, by an intrusive_ptr from 2.13 on.
using NodePtr = std::decay_t<decltype(std::declval<torch::autograd::Edge>().function)>;

template <typename T, typename Ptr = NodePtr, typename Base = Node>
auto make_node() {
  if constexpr (std::is_same_v<Ptr, std::shared_ptr<Base>>) {
    return std::shared_ptr<T>(new T(), [](Base* node) { deleteNode(node); });
  } else {
    return c10::make_intrusive<T>();
  }
}

inline OptionalTensor defined(at::Tensor t) { return t.defined() ? OptionalTensor(std::move(t)) : std::nullopt; }

// What a node saves besides tensors.
struct Settings {
  at::Scalar value;
  int64_t channel_dim = 1;
  int64_t formula = 0, kind = 0;  // as the operators take them (operators.h)
  std::vector<int64_t> stride;    // y's strides, if only the mask was saved and y is not contiguous

  // Calls f with each field.
  template <typename Self, typename F>
  static void for_each(Self& self, F f) {
    f(self.value), f(self.channel_dim), f(self.formula), f(self.kind), f(self.stride);
  }
};

// The tensors that a node may save. grad: only in the derivative of backward.
enum SavedTensor { kGrad, kSaved, kMask, kAlpha, kSavedTensors };

// What a node saved, unpacked, and which of its inputs need a gradient.
struct Unpacked : Settings {
  std::array<OptionalTensor, kSavedTensors> tensors;
  std::vector<bool> needed;

  const OptionalTensor& operator[](SavedTensor which) const { return tensors[which]; }
  SlopeArg slope() const { return {tensors[kAlpha], value, channel_dim}; }
  bool needs(size_t i) const { return i < needed.size() && needed[i]; }
};

// Self defines `static variable_list gradients(const variable_list& grads, const Unpacked& from)`.
template <typename Self>
struct SavingNode : Node, Settings {
  std::array<SavedVariable, kSavedTensors> variables;

  void save(SavedTensor which, const at::Tensor& tensor, bool is_output = false, bool is_inplace_on_view = false) {
    variables[which] = SavedVariable(tensor, is_output, is_inplace_on_view);
  }

  void save_slope(const SlopeArg& slope) {
    if (slope.alpha) save(kAlpha, *slope.alpha);
    value = slope.value;
    channel_dim = slope.channel_dim;
  }

  bool saves_output() const { return kind == int64_t(Saved::Output) || kind == int64_t(Saved::OutputAndMask); }

  variable_list apply(variable_list&& grads) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    return Self::gradients(grads, unpack());
  }

  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (SavedVariable& variable : variables) variable.reset_data();
  }

  // Gives compiled autograd the key of this node: nodes with equal keys share compiled code.
  void compiled_args(torch::autograd::CompiledNodeArgs& args) const override {
    for (int i = 0; i < kSavedTensors; ++i) args.collect(variables[i], i == kSaved && saves_output());
    for_each(*this, [&](const auto& field) { args.collect(field); });
  }

  // Gives compiled autograd a function of plain values in place of this node.
  variable_list apply_with_saved(const variable_list& grads, torch::autograd::SwapSavedVariables& swap) override {
    using namespace torch::dynamo::autograd;
    for (SavedVariable& variable : variables) swap.before(variable);
    swap.before(value);
    const Unpacked from = unpack();
    PackedArgs packed;
    for (const OptionalTensor& tensor : from.tensors) packed.pack(tensor.value_or(at::Tensor()));
    for_each(from, [&](const auto& field) { packed.pack(field); });
    packed.pack(from.needed);
    std::vector<at::TypePtr> schema;
    for (const at::IValue& argument : packed.vec()) {
      schema.emplace_back(argument.isTensor() ? at::TypePtr(at::TensorType::get()) : argument.type());
    }
    const auto& python = getPyCompilerInterface();
    const std::string name = python->bind_function(swap.get_py_compiler(), this->name(), &call_packed, schema,
                                                   /*is_custom_function=*/true);
    const auto metadata = IValuePacker<std::vector<std::optional<torch::autograd::InputMetadata>>>::pack(
        get_input_metadata(next_edges()));
    variable_list result =
        python->call_function(swap.get_py_compiler(), "apply_functional", name, grads, packed.vec(), metadata);
    for (SavedVariable& variable : variables) swap.after(variable);
    swap.after(value);
    return result;
  }

 private:
  Unpacked unpack() {
    Unpacked result{*this, {}, {}};
    for (int i = 0; i < kSavedTensors; ++i) result.tensors[i] = defined(variables[i].unpack(getptr()));
    for (size_t i = 0; i < num_outputs(); ++i) result.needed.push_back(task_should_compute_output(i));
    return result;
  }

  static variable_list call_packed(const variable_list& grads, const std::vector<at::IValue>& arguments) {
    torch::dynamo::autograd::PackedArgs packed(arguments);
    Unpacked from;
    for (OptionalTensor& tensor : from.tensors) tensor = defined(packed.unpack<at::Tensor>());
    for_each(from, [&](auto& field) { field = packed.unpack<std::decay_t<decltype(field)>>(); });
    from.needed = packed.unpack<std::vector<bool>>();
    return Self::gradients(grads, from);
  }
};

}  // namespace leaky_ext::autograd
