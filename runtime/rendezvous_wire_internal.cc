#include "slipstream/runtime/rendezvous_wire_internal.h"

#include <fmt/format.h>

#include <type_traits>

#include "slipstream/runtime/posix_internal.h"
#include "slipstream/runtime/secret_internal.h"

namespace slip::rendezvous_wire {
namespace {

constexpr std::string_view magic = "SLIP";
constexpr std::size_t header_bytes = 5;
constexpr std::size_t max_payload_bytes = max_value_bytes + max_name_bytes + 16;

[[noreturn]] void malformed(const std::string& what) { throw Error(Code::bad_data, what); }

template <class Integer>
void append(std::string& bytes, Integer value) {
  const auto bits = static_cast<std::make_unsigned_t<Integer>>(value);
  for (std::size_t i = 0; i < sizeof bits; ++i) {
    bytes.push_back(static_cast<char>(static_cast<std::uint64_t>(bits) >> (8 * i) & 0xff));
  }
}

/// Takes values off the front; never reads past the end.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}

  template <class Integer>
  Integer take() {
    std::uint64_t bits = 0;
    const std::string_view bytes = take_bytes(sizeof(Integer));
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      bits |= std::uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
    }
    return static_cast<Integer>(bits);
  }

  std::string_view take_bytes(std::size_t count) {
    if (count > rest_.size()) malformed("a message is shorter than it says");
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }

  std::string_view take_rest() { return take_bytes(rest_.size()); }

 private:
  std::string_view rest_;
};

std::string frame(Kind kind, std::string_view payload) {
  std::string bytes;
  bytes.reserve(header_bytes + payload.size());
  append(bytes, static_cast<std::uint8_t>(kind));
  append(bytes, static_cast<std::uint32_t>(payload.size()));
  bytes += payload;
  return bytes;
}

void check_name(std::string_view name) {
  if (name.empty() || name.size() > max_name_bytes) {
    malformed(fmt::format("a name has {} bytes; 1 to {} are allowed", name.size(), max_name_bytes));
  }
}

void check_value(std::string_view value) {
  if (value.size() > max_value_bytes) {
    malformed(fmt::format("a value has {} bytes; {} are allowed", value.size(), max_value_bytes));
  }
}

/// A frame of this kind, or it is not what was to come.
void check_kind(const Frame& frame, Kind kind) {
  if (frame.kind != kind) malformed(fmt::format("kind {}", static_cast<int>(frame.kind)));
}

void check_end(Reader& reader) {
  if (!reader.take_rest().empty()) malformed("a message is longer than it should be");
}

Duration take_timeout(Reader& reader) {
  const auto timeout = reader.take<std::int64_t>();
  if (timeout < 0) malformed("a time-out is negative");
  return Duration(timeout);
}

// The other codes are this side's own business.
Code code_from_peer(std::int32_t number) {
  return number == static_cast<int>(Code::timeout) ? Code::timeout : Code::bootstrap_failed;
}

}  // namespace

std::string encode_preamble() {
  std::string bytes(magic);
  append(bytes, version);
  return bytes;
}

std::uint32_t decode_preamble(std::string_view bytes) {
  Reader reader(bytes);
  if (reader.take_bytes(magic.size()) != magic) malformed("it does not speak this protocol");
  return reader.take<std::uint32_t>();
}

std::string encode(const Hello& hello) {
  std::string bytes = encode_preamble();
  append(bytes, hello.rank);
  append(bytes, hello.size);
  append(bytes, hello.incarnation);
  return bytes;
}

Hello decode_hello(std::string_view bytes) {
  Reader reader(bytes);
  Hello hello;
  hello.rank = reader.take<std::int32_t>();
  hello.size = reader.take<std::int32_t>();
  hello.incarnation = reader.take<std::uint32_t>();
  return hello;
}

std::string encode(const Request& request) {
  std::string payload;
  switch (request.kind) {
    case Kind::put:
      payload.reserve(2 + request.name.size() + request.value.size());
      append(payload, static_cast<std::uint16_t>(request.name.size()));
      payload += request.name;
      payload += request.value;
      break;
    case Kind::get:
      append(payload, static_cast<std::int64_t>(request.timeout.count()));
      payload += request.name;
      break;
    case Kind::gather:
      append(payload, static_cast<std::int64_t>(request.timeout.count()));
      append(payload, static_cast<std::uint16_t>(request.name.size()));
      payload += request.name;
      payload += request.value;
      break;
    case Kind::fence:
      append(payload, static_cast<std::int64_t>(request.timeout.count()));
      break;
    case Kind::failed:
      payload += request.value;
      break;
    default:
      break;
  }
  return frame(request.kind, payload);
}

std::string encode(const Answer& answer) {
  if (answer.kind == Kind::done) return frame(Kind::done, answer.value);
  std::string payload;
  append(payload, static_cast<std::int32_t>(answer.kind == Kind::lost
                                                ? answer.status.peer()
                                                : static_cast<int>(answer.status.code())));
  payload += answer.status.message();
  return frame(answer.kind, payload);
}

std::string worker_proof(std::string_view secret, std::string_view challenge,
                         std::string_view nonce, std::string_view hello) {
  return prove(secret, {"worker", challenge, nonce, hello});
}

std::string rendezvous_proof(std::string_view secret, std::string_view challenge,
                             std::string_view nonce) {
  return prove(secret, {"rendezvous", challenge, nonce});
}

std::string encode_challenge(std::string_view nonce) { return frame(Kind::challenge, nonce); }

std::string encode(const Proof& proof) { return frame(Kind::proof, proof.nonce + proof.proof); }

std::string encode(const Welcome& welcome) {
  std::string value;
  append(value, welcome.served_by);
  return frame(Kind::done, value + welcome.proof);
}

std::string decode_challenge(const Frame& frame) {
  check_kind(frame, Kind::challenge);
  Reader reader(frame.payload);
  std::string nonce(reader.take_bytes(nonce_bytes));
  check_end(reader);
  return nonce;
}

Proof decode_proof(const Frame& frame) {
  check_kind(frame, Kind::proof);
  Reader reader(frame.payload);
  Proof proof;
  proof.nonce = reader.take_bytes(nonce_bytes);
  proof.proof = reader.take_bytes(proof_bytes);
  check_end(reader);
  return proof;
}

Welcome decode_welcome(std::string_view value) {
  Reader reader(value);
  Welcome welcome;
  welcome.served_by = reader.take<std::int32_t>();
  welcome.proof = reader.take_bytes(proof_bytes);
  check_end(reader);
  return welcome;
}

std::string encode_values(const std::vector<std::string>& values) {
  std::string bytes;
  append(bytes, static_cast<std::uint32_t>(values.size()));
  for (const std::string& value : values) {
    append(bytes, static_cast<std::uint32_t>(value.size()));
    bytes += value;
  }
  return bytes;
}

std::vector<std::string> decode_values(std::string_view value) {
  Reader reader(value);
  std::vector<std::string> values;
  // Each takes some bytes, so that a wrong number soon runs out of them.
  for (auto left = reader.take<std::uint32_t>(); left > 0; --left) {
    values.emplace_back(reader.take_bytes(reader.take<std::uint32_t>()));
  }
  check_end(reader);
  return values;
}

std::optional<Frame> first_frame(std::string_view bytes) {
  if (bytes.size() < header_bytes) return std::nullopt;
  Reader reader(bytes);
  const auto kind = static_cast<Kind>(reader.take<std::uint8_t>());
  const auto length = reader.take<std::uint32_t>();
  if (length > max_payload_bytes) malformed(fmt::format("a message of {} bytes", length));
  if (bytes.size() < header_bytes + length) return std::nullopt;
  return Frame{kind, reader.take_bytes(length), header_bytes + length};
}

Request decode_request(const Frame& frame) {
  Reader reader(frame.payload);
  Request request{frame.kind};
  switch (frame.kind) {
    case Kind::put:
      request.name = reader.take_bytes(reader.take<std::uint16_t>());
      request.value = reader.take_rest();
      check_name(request.name);
      check_value(request.value);
      return request;
    case Kind::get:
      request.timeout = take_timeout(reader);
      request.name = reader.take_rest();
      check_name(request.name);
      return request;
    case Kind::gather:
      request.timeout = take_timeout(reader);
      request.name = reader.take_bytes(reader.take<std::uint16_t>());
      request.value = reader.take_rest();
      check_name(request.name);
      check_value(request.value);
      return request;
    case Kind::fence:
      request.timeout = take_timeout(reader);
      return request;
    case Kind::goodbye:
      return request;
    case Kind::failed:
      request.value = reader.take_rest();
      if (request.value.size() > max_reason_bytes) {
        malformed(fmt::format("a reason of {} bytes", request.value.size()));
      }
      return request;
    default:
      malformed(fmt::format("an unknown request {}", static_cast<int>(frame.kind)));
  }
}

Answer decode_answer(const Frame& frame) {
  Reader reader(frame.payload);
  switch (frame.kind) {
    case Kind::done:
      return {Kind::done, reader.take_rest()};
    case Kind::refused: {
      const Code code = code_from_peer(reader.take<std::int32_t>());
      return {Kind::refused, {}, Status(code, printable(reader.take_rest()))};
    }
    case Kind::lost: {
      const auto rank = reader.take<std::int32_t>();
      return {Kind::lost, {}, Status(Code::peer_lost, printable(reader.take_rest()), rank)};
    }
    default:
      malformed(fmt::format("an unknown answer {}", static_cast<int>(frame.kind)));
  }
}

}  // namespace slip::rendezvous_wire
