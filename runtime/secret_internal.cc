#include "slipstream/runtime/secret_internal.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/random.h>

#include <cstdint>

#include "slipstream/base/error.h"

namespace slip {
namespace {

std::string random_bytes(std::size_t count) {
  std::string bytes(count, '\0');
  // Up to 256 bytes come at once.
  if (getrandom(bytes.data(), count, 0) != static_cast<ssize_t>(count)) throw_errno("getrandom");
  return bytes;
}

}  // namespace

std::string new_nonce() { return random_bytes(nonce_bytes); }

std::string new_secret() {
  std::string text;
  for (const char byte : random_bytes(32)) {
    text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  }
  return text;
}

std::string prove(std::string_view secret, std::initializer_list<std::string_view> parts) {
  std::string message;
  for (const std::string_view part : parts) {
    const auto length = static_cast<std::uint32_t>(part.size());
    for (int shift = 0; shift < 32; shift += 8) message += static_cast<char>(length >> shift);
    message += part;
  }
  std::string proof(proof_bytes, '\0');
  unsigned length = 0;
  const auto* const made =
      HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
           reinterpret_cast<const unsigned char*>(message.data()), message.size(),
           reinterpret_cast<unsigned char*>(proof.data()), &length);
  if (made == nullptr || length != proof_bytes) {
    throw Error(Code::bootstrap_failed, "OpenSSL cannot compute HMAC-SHA256");
  }
  return proof;
}

bool is_same_proof(std::string_view one, std::string_view other) {
  return one.size() == other.size() && CRYPTO_memcmp(one.data(), other.data(), one.size()) == 0;
}

}  // namespace slip
