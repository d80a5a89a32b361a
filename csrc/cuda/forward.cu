// Chooses the kernel of a forward pass: y, and the mask of the negative elements if it is wanted.
#include "forward.cuh"

namespace leaky_ext::cuda {

void forward(const ForwardArgs& args, const Launch& launch) {
  const int64_t numel = args.shape.numel();
  if (numel == 0) return;
  const Access access = common_access({{args.x, &args.x_view}, {args.y, &args.y_view}}, args.dtype, numel);
  const bool slope_per_pack = !has_many_slopes(args) || args.shape.inner % pack_width(args.dtype) == 0;
  slope_per_pack || access == Access::Strided ? forward_flat(args, access, launch)
                                              : forward_columns(args, access, launch);
}

}  // namespace leaky_ext::cuda
