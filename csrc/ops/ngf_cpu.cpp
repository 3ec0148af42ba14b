// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The ops on the CPU.

#include <algorithm>

#include "../cpu/fork.h"
#include "../cpu/scale.h"
#include "../cpu/sweep.h"
#include "../math/voxel.h"
#include "ops.h"

namespace nec {
namespace {

cpu::Threads torch_threads() {
  // In a forked child torch's pool waits for threads that are not there.
  return {cpu::is_forked_child() ? 1 : int(torch::stable::get_num_threads()),
          [](int count, const std::function<void(int)>& body) {
            torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
              for (int64_t worker = begin; worker < end; ++worker) body(int(worker));
            });
          }};
}

void set_scalar(const Tensor& tensor, double value) {
  if (tensor.element_size() == sizeof(double)) {
    *static_cast<double*>(tensor.mutable_data_ptr()) = value;
  } else {
    *static_cast<float*>(tensor.mutable_data_ptr()) = float(value);
  }
}

double scalar(const View& view) {
  return view.dtype == DType::float64 ? *static_cast<const double*>(view.data)
                                      : double(*static_cast<const float*>(view.data));
}

struct Cpu {
  static constexpr int kRowAxes = 3;

  explicit Cpu(const Tensor&) {}

  void maps(const Problem& p) { cpu::sweep(p, torch_threads()); }

  void reduce(Problem& p, const Reduced& r) {
    const double voxels = p.mask ? cpu::total(cpu::mask_sums(p, torch_threads())) : voxel_count(p);
    const double factor = loss_factor(p.weight, r.mean, voxels);
    p.gradient_scale = r.normalize ? factor : 1.0;
    const double sum = cpu::total(cpu::sweep(p, torch_threads()));
    set_scalar(r.loss, LossOfValue::of(p.form).sum(factor, voxels, sum));
    set_scalar(r.factor, factor);
  }

  void sums(const Problem& p, bool of_mask, double* out, int64_t count) {
    const cpu::PlaneSums planes =
        of_mask ? cpu::mask_sums(p, torch_threads()) : cpu::sweep(p, torch_threads());
    if (count == 1) {
      *out = cpu::total(planes);
    } else {
      std::copy(planes.begin(), planes.end(), out);
    }
  }

  void scale(const View& gradient, const int64_t (&size)[kAxes], const View& upstream,
             const View& factor) {
    cpu::scale(gradient, size, scalar(upstream) * (factor ? scalar(factor) : 1.0), torch_threads());
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(nec_ext, CPU, m) {
  m.impl("ngf_forward", &ngf_forward<Cpu>);
  m.impl("ngf_backward", &ngf_backward<Cpu>);
  m.impl("ngf_eps_backward", &ngf_eps_backward<Cpu>);
  m.impl("ngf_sums_", &ngf_sums_<Cpu>);
  m.impl("ngf_scale_", TORCH_BOX(&ngf_scale_<Cpu>));
}

}  // namespace nec
