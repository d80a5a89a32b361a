// The node that our gradients share: what it saves, and how autograd and compiled autograd get at it.
#pragma once

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/dynamo/compiled_autograd.h>

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

// What a node saved, unpacked, and which of its inputs need a gradient.
struct Unpacked {
  at::Tensor grad;  // of the derivative of backward alone
  OptionalTensor saved, mask, alpha;
  at::Scalar value;
  int64_t channel_dim = 1;
  Formula formula = Formula::LeakyReLU;  // of ForwardNode
  Saved kind = Saved::Input;
  std::vector<int64_t> stride;
  std::vector<bool> needed;

  SlopeArg slope() const { return {alpha, value, channel_dim}; }
  bool needs(size_t i) const { return i < needed.size() && needed[i]; }
};

// Self defines `static variable_list gradients(const variable_list& grads, const Unpacked& from)`.
template <typename Self>
struct SavingNode : Node {
  SavedVariable grad, saved, mask, alpha;
  at::Scalar value;
  int64_t channel_dim = 1;
  Formula formula = Formula::LeakyReLU;
  Saved kind = Saved::Input;
  std::vector<int64_t> stride;  // of y, where the mask alone was saved and y is not contiguous

  void save_slope(const SlopeArg& slope) {
    if (slope.alpha) alpha = SavedVariable(*slope.alpha, false);
    value = slope.value;
    channel_dim = slope.channel_dim;
  }

  bool saves_output() const { return kind == Saved::Output || kind == Saved::OutputAndMask; }

  variable_list apply(variable_list&& grads) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    return Self::gradients(grads, unpack());
  }

  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (SavedVariable* variable : {&grad, &saved, &mask, &alpha}) variable->reset_data();
  }

  // Compiled autograd: what makes this node another one than the last, and a function of plain values in its place.
  void compiled_args(torch::autograd::CompiledNodeArgs& args) const override {
    args.collect(grad, false);
    args.collect(saved, saves_output());
    args.collect(mask, false);
    args.collect(alpha, false);
    args.collect(value);
    args.collect(channel_dim);
    args.collect(int64_t(formula));
    args.collect(int64_t(kind));
    args.collect(stride);
  }

  variable_list apply_with_saved(const variable_list& grads, torch::autograd::SwapSavedVariables& swap) override {
    using namespace torch::dynamo::autograd;
    for (SavedVariable* variable : {&grad, &saved, &mask, &alpha}) swap.before(*variable);
    swap.before(value);
    const Unpacked from = unpack();
    PackedArgs packed;
    pack(from, packed);
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
    for (SavedVariable* variable : {&grad, &saved, &mask, &alpha}) swap.after(*variable);
    swap.after(value);
    return result;
  }

 private:
  Unpacked unpack() {
    std::vector<bool> needed(num_outputs());
    for (size_t i = 0; i < needed.size(); ++i) needed[i] = task_should_compute_output(i);
    return {grad.unpack(),
            defined(saved.unpack(getptr())),
            defined(mask.unpack()),
            defined(alpha.unpack()),
            value,
            channel_dim,
            formula,
            kind,
            stride,
            needed};
  }

  static void pack(const Unpacked& from, torch::dynamo::autograd::PackedArgs& packed) {
    packed.pack(from.grad);
    packed.pack(from.saved.value_or(at::Tensor()));
    packed.pack(from.mask.value_or(at::Tensor()));
    packed.pack(from.alpha.value_or(at::Tensor()));
    packed.pack(from.value);
    packed.pack(from.channel_dim);
    packed.pack(int64_t(from.formula));
    packed.pack(int64_t(from.kind));
    packed.pack(from.stride);
    packed.pack(from.needed);
  }

  static variable_list call_packed(const variable_list& grads, const std::vector<at::IValue>& arguments) {
    torch::dynamo::autograd::PackedArgs packed(arguments);
    Unpacked from;
    from.grad = packed.unpack<at::Tensor>();
    from.saved = defined(packed.unpack<at::Tensor>());
    from.mask = defined(packed.unpack<at::Tensor>());
    from.alpha = defined(packed.unpack<at::Tensor>());
    from.value = packed.unpack<at::Scalar>();
    from.channel_dim = packed.unpack<int64_t>();
    from.formula = Formula(packed.unpack<int64_t>());
    from.kind = Saved(packed.unpack<int64_t>());
    from.stride = packed.unpack<std::vector<int64_t>>();
    from.needed = packed.unpack<std::vector<bool>>();
    return Self::gradients(grads, from);
  }
};

}  // namespace leaky_ext::autograd
