// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// A vector register of numbers, for the formulas of csrc/math, which take it for one number.
//
// So the row loops are vector code, whatever a compiler makes of loops. Included by row_kernels.inl
// alone and in an unnamed namespace, because each instruction set has registers of its own size,
// NEC_LANE_BYTES.

namespace nec::cpu {
namespace {

// The attribute does not take a type that depends on T.
template <typename T>
struct Registers;
template <>
struct Registers<float> {
  typedef float Vector __attribute__((vector_size(NEC_LANE_BYTES)));
  typedef float Unaligned __attribute__((vector_size(NEC_LANE_BYTES), aligned(4)));
};
template <>
struct Registers<double> {
  typedef double Vector __attribute__((vector_size(NEC_LANE_BYTES)));
  typedef double Unaligned __attribute__((vector_size(NEC_LANE_BYTES), aligned(8)));
};

template <typename T>
struct Lanes {
  static constexpr int size = NEC_LANE_BYTES / int(sizeof(T));
  using Vector = typename Registers<T>::Vector;
  using Mask = decltype(Vector() < Vector());  // -1 where a comparison holds, else 0

  Vector v;

  Lanes() = default;
  NEC_INLINE Lanes(Vector of_all) : v(of_all) {}
  NEC_INLINE Lanes(T of_each) : v(of_each - Vector{}) {}

  friend NEC_INLINE Lanes operator+(Lanes a, Lanes b) { return a.v + b.v; }
  friend NEC_INLINE Lanes operator-(Lanes a, Lanes b) { return a.v - b.v; }
  friend NEC_INLINE Lanes operator*(Lanes a, Lanes b) { return a.v * b.v; }
  friend NEC_INLINE Lanes operator-(Lanes a) { return -a.v; }
  friend NEC_INLINE Lanes& operator+=(Lanes& a, Lanes b) { return a = a + b; }
  friend NEC_INLINE Lanes& operator*=(Lanes& a, Lanes b) { return a = a * b; }
  friend NEC_INLINE Mask operator<(Lanes a, Lanes b) { return a.v < b.v; }
  friend NEC_INLINE Mask operator>(Lanes a, Lanes b) { return a.v > b.v; }
  friend NEC_INLINE Mask operator>=(Lanes a, Lanes b) { return a.v >= b.v; }
  friend NEC_INLINE Mask operator<=(Lanes a, Lanes b) { return a.v <= b.v; }
  friend NEC_INLINE Mask operator==(Lanes a, Lanes b) { return a.v == b.v; }
  // Instead of a branch (common.h).
  friend NEC_INLINE Lanes choose(Mask which, Lanes a, Lanes b) { return which ? a.v : b.v; }
};

// The unit in which a row loop computes: a register, or one number of a wider type A.
template <typename T, typename A>
using Number = std::conditional_t<std::is_same_v<T, A>, Lanes<T>, A>;

template <typename N>
constexpr int kNumbers = 1;  // in it
template <typename T>
constexpr int kNumbers<Lanes<T>> = Lanes<T>::size;

template <typename N, typename T>
NEC_INLINE N load(const T* from) {
  if constexpr (kNumbers<N> > 1) {
    return {*reinterpret_cast<const typename Registers<T>::Unaligned*>(from)};
  } else {
    return N(*from);
  }
}

template <typename T>
NEC_INLINE void store(Lanes<T> value, T* to) {
  *reinterpret_cast<typename Registers<T>::Unaligned*>(to) = value.v;
}
template <typename A, typename T>
NEC_INLINE void store(A value, T* to) {
  *to = T(value);
}

// Once per row. Upper and lower half become one until one is left, which takes few steps.
NEC_INLINE bool all(bool holds) { return holds; }
template <typename Mask>
NEC_INLINE bool all(Mask holds) {
  int64_t words[NEC_LANE_BYTES / 8];
  __builtin_memcpy(words, &holds, sizeof words);
  for (int half = NEC_LANE_BYTES / 16; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) words[i] &= words[i + half];
  return words[0] == -1;
}

// Adds up in double what a row has left in each lane: few numbers, for which T is enough.
template <typename A>
NEC_INLINE void add_lanes(A x, double* sums) {
  *sums += double(x);
}
template <typename T>
NEC_INLINE void add_lanes(Lanes<T> x, double* sums) {
  for (int i = 0; i < Lanes<T>::size; ++i) sums[i] += double(x.v[i]);
}

template <typename T>
NEC_INLINE Lanes<T> square_root(Lanes<T> x) {
  for (int i = 0; i < Lanes<T>::size; ++i) x.v[i] = nec::square_root(x.v[i]);
  return x;
}
template <typename T>
NEC_INLINE Lanes<T> reciprocal(Lanes<T> x) {
  return Lanes<T>(1).v / x.v;
}

#if defined(__x86_64__)
// The processor's estimate with a step of Newton's method, which doubles its digits: the one
// divider of a core has the roots to do. Wrong by no more than two units in the last place. By
// builtins, because clang-cl hides intrinsics of what a file as a whole is not compiled for.
NEC_INLINE Lanes<float> reciprocal(Lanes<float> x) {
#if NEC_LANE_BYTES == 64
  const Lanes<float> y = __builtin_ia32_rcp14ps512_mask(x.v, x.v, -1);
#elif NEC_LANE_BYTES == 32
  const Lanes<float> y = __builtin_ia32_rcpps256(x.v);
#else
  const Lanes<float> y = __builtin_ia32_rcpps(x.v);
#endif
  return y + y * (Lanes<float>(1) - x * y);
}
#endif

}  // namespace

}  // namespace nec::cpu

namespace nec {

template <typename T>
struct Range<cpu::Lanes<T>> : Range<T> {};

}  // namespace nec
