#pragma once

#include <cstddef>
#include <initializer_list>
#include <string>
#include <string_view>

#pragma GCC visibility push(hidden)

namespace slip {

constexpr std::size_t nonce_bytes = 16;
constexpr std::size_t proof_bytes = 32;

/// Random bytes, never used twice: what makes a proof worthless for the next conversation.
std::string new_nonce();

/// A random secret, as printable text.
std::string new_secret();

/// Shows who can compute it, and nobody else, to know `secret`: HMAC-SHA256 of the parts, each with
/// its length.
std::string prove(std::string_view secret, std::initializer_list<std::string_view> parts);

/// Takes the same time wherever the two differ.
bool is_same_proof(std::string_view one, std::string_view other);

}  // namespace slip

#pragma GCC visibility pop
