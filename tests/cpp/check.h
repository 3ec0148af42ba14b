// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// What the C++ tests need of a test framework: checks that count, print and go on, and an exit
// code.
#pragma once

#include <cmath>
#include <cstdio>
#include <string>

namespace check {

inline long done = 0, failed = 0;
constexpr long kMostPrinted = 20;  // one error in a formula fails thousands of checks

inline void record(bool ok, const char* file, int line, const std::string& message) {
  ++done;
  if (ok) return;
  if (++failed <= kMostPrinted) std::printf("%s:%d: %s\n", file, line, message.c_str());
}

template <typename Context>
void near(long double value, long double expected, long double tolerance, const char* file,
          int line, const Context& context) {
  const bool ok = std::fabs(value - expected) <= tolerance;
  char text[120] = "";
  if (!ok) {
    std::snprintf(text, sizeof text, "%.9Lg, expected %.9Lg within %Lg: ", value, expected,
                  tolerance);
  }
  record(ok, file, line, ok ? "" : text + context());
}

// The exit code of main. A test that checks nothing has failed.
inline int finish(const char* name) {
  std::printf("%s: %ld checks, %ld failed\n", name, done, failed);
  return failed || !done;
}

}  // namespace check

// `context` says which case it was; it is only evaluated for a check that fails.
#define CHECK(condition, context)                                                 \
  do {                                                                            \
    const bool ok_ = bool(condition);                                             \
    check::record(ok_, __FILE__, __LINE__,                                        \
                  ok_ ? "" : std::string("false: " #condition ": ") + (context)); \
  } while (0)

// False for a NaN.
#define CHECK_NEAR(value, expected, tolerance, context) \
  check::near(value, expected, tolerance, __FILE__, __LINE__, [&] { return std::string(context); })
