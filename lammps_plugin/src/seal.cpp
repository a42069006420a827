/* so3k-md: pair_style so3k. GPL-2, see ../LICENSE. */

#include "seal.h"

#include <array>
#include <cstdint>
#include <stdexcept>

namespace So3k {

namespace {

  const std::string TAG = "so3k-md sha256 ";    // so3k_md/seals.py has the same
  constexpr size_t DIGITS = 64, BLOCK = 64;

  // clang-format off
  constexpr std::array<uint32_t, 64> CONSTANTS = {
      0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
      0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
      0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
      0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
      0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
      0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
      0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
      0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
  // clang-format on

  using State = std::array<uint32_t, 8>;

  uint32_t rotated(uint32_t word, int bits)
  {
    return (word >> bits) | (word << (32 - bits));
  }

  /// One block of 64 bytes, FIPS 180-4, 6.2.2.
  void add_block(State &state, const unsigned char *block)
  {
    std::array<uint32_t, 64> w;
    for (int t = 0; t < 16; ++t)
      w[t] = uint32_t(block[4 * t]) << 24 | uint32_t(block[4 * t + 1]) << 16 |
          uint32_t(block[4 * t + 2]) << 8 | uint32_t(block[4 * t + 3]);
    for (int t = 16; t < 64; ++t)
      w[t] = w[t - 16] + w[t - 7] +
          (rotated(w[t - 15], 7) ^ rotated(w[t - 15], 18) ^ (w[t - 15] >> 3)) +
          (rotated(w[t - 2], 17) ^ rotated(w[t - 2], 19) ^ (w[t - 2] >> 10));
    auto [a, b, c, d, e, f, g, h] = state;
    for (int t = 0; t < 64; ++t) {
      const auto first = h + (rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)) +
          ((e & f) ^ (~e & g)) + CONSTANTS[t] + w[t];
      const auto second =
          (rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
      h = g;
      g = f;
      f = e;
      e = d + first;
      d = c;
      c = b;
      b = a;
      a = first + second;
    }
    const State more = {a, b, c, d, e, f, g, h};
    for (size_t i = 0; i < state.size(); ++i) state[i] += more[i];
  }

  /// SHA-256 of the first `size` bytes, in hexadecimal digits.
  std::string sha256(const std::string &bytes, size_t size)
  {
    State state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                   0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    const auto *data = reinterpret_cast<const unsigned char *>(bytes.data());
    const auto whole = size / BLOCK * BLOCK;
    for (size_t begin = 0; begin < whole; begin += BLOCK) add_block(state, data + begin);
    std::string end = bytes.substr(whole, size - whole) + '\x80';
    end.resize((end.size() + 8 + BLOCK - 1) / BLOCK * BLOCK - 8, '\0');
    for (int shift = 56; shift >= 0; shift -= 8) end += char(uint64_t(size) * 8 >> shift & 0xff);
    data = reinterpret_cast<const unsigned char *>(end.data());
    for (size_t begin = 0; begin < end.size(); begin += BLOCK) add_block(state, data + begin);
    std::string digits;
    for (const auto word : state)
      for (int shift = 28; shift >= 0; shift -= 4)
        digits += "0123456789abcdef"[word >> shift & 0xf];
    return digits;
  }

}    // namespace

void require_seal(const std::string &bytes)
{
  const auto length = TAG.size() + DIGITS;
  const auto rest = bytes.size() < length ? 0 : bytes.size() - length;
  if (bytes.size() < length || bytes.compare(rest, TAG.size(), TAG) != 0)
    throw std::runtime_error(
        "it does not end with the seal of so3k-md: it is truncated, of another "
        "program, or of an older version, whose files so3k-md export converts");
  if (bytes.compare(rest + TAG.size(), DIGITS, sha256(bytes, rest)) != 0)
    throw std::runtime_error("it is damaged: its bytes do not match the SHA-256 at its end");
}

}    // namespace So3k
