#include <fmt/format.h>

#include "slipstream/collectives/staging_internal.h"
#include "slipstream/gpu/memory.h"
#include "slipstream/kernels/kernels.h"

namespace slip::partial_all_reduce {
namespace {

// Two lanes for every worker are worth it up to here; more of them would be much memory.
constexpr std::size_t most_in_one_shot = 4096;

}  // namespace

Layout::Layout(int workers, std::size_t count, Dtype dtype, const PartialAllReduceOptions& options)
    : workers(workers),
      count(count),
      dtype(dtype),
      device(options.device),
      wire(options.wire),
      has_one_shot(
          options.algorithm == Algorithm::one_shot ||
          ((options.algorithm == Algorithm::automatic || options.algorithm == Algorithm::nccl) &&
           vector_bytes() <= most_in_one_shot)),
      has_others(workers > 1 && options.algorithm != Algorithm::one_shot),
      // One shot writes the vector when everything has come.
      buffers(options.in_place || !has_others ? 1 : 2),
      word_offset(round_up(vector_bytes(), sizeof(Word))),
      lane_bytes(has_one_shot ? round_up(word_offset + sizeof(Word), line) : 0) {
  if (options.algorithm != Algorithm::nccl) return;
  const bool on_gpu = device != gpu::host;
  if (on_gpu && !options.in_background) return;
  throw Error(Code::invalid_argument,
              fmt::format("algorithm is nccl, which averages in memory of GPUs{}; choose another, "
                          "or automatic",
                          on_gpu ? " and not in the background" : ""));
}

std::size_t Layout::bytes() const {
  // A line more for each other wire: by the size of their regions members see that they disagree.
  return buffer(buffers) + static_cast<std::size_t>(workers - 1) * 2 * lane_bytes +
         static_cast<std::size_t>(wire) * line;
}

std::size_t Layout::lanes_bytes() const {
  constexpr std::size_t small = std::size_t{128} << 10;
  const std::size_t vector = vector_bytes();
  return std::max(vector, std::min(8 * vector, small)) + static_cast<std::size_t>(workers) * line;
}

Shards::Shards(std::size_t shards, std::size_t count, std::size_t element_bytes, std::size_t chunk)
    : shards(shards),
      count(count),
      shard(round_up(divide_up(count, shards), line / element_bytes)),
      chunk(std::max(chunk, round_up(divide_up(shard, max_steps), line / element_bytes))),
      chunks(std::max<std::size_t>(1, divide_up(shard, this->chunk))) {}

Packing::Packing(const Layout& layout)
    : layout_(layout),
      element_bytes_(layout.wire == Wire::bf16 ? sizeof(std::uint16_t) : size_of(layout.dtype)),
      on_host_(layout.wire == Wire::bf16 && layout.device == gpu::host ? layout.count : 0) {
  packed_ = on_host_;
  if (layout.wire == Wire::exact || layout.device == gpu::host) return;
  on_gpu_ = gpu::allocate(layout.device, bytes(layout.count));
  packed_ = {reinterpret_cast<std::uint16_t*>(on_gpu_.get()), layout.count};
}

const void* Packing::pack(ConstVectorView part, std::size_t first) {
  if (!is_lossy()) return part.data;
  kernels::to_bf16(packed_.subspan(first, part.count), part);
  return packed_.data() + first;
}

void Packing::unpack(VectorView part) const {
  if (!is_lossy()) return;
  const auto* end = static_cast<const std::byte*>(part.data) + part.bytes();
  kernels::from_bf16(part, {reinterpret_cast<const std::uint16_t*>(end) - part.count, part.count});
}

void Packing::round(VectorView part, std::size_t first) {
  if (!is_lossy()) return;
  (void)pack(part, first);
  kernels::from_bf16(part, packed_.subspan(first, part.count));
}

void Staging::begin(const Shards& shards, VectorView vector, unsigned current) {
  shards_ = shards;
  vector_ = vector;
  current_ = current;
  staged_ = vector.data != windows_.region().data() + layout_.buffer(current);
  kept_ = 0;
}

VectorView Staging::part(std::size_t place, std::size_t c) const {
  const Range chunk = shards_.of(place, c);
  return vector_.slice(chunk.begin, chunk.size());
}

void Staging::stage(std::size_t place, std::size_t c) const {
  if (!staged_) return;
  const VectorView from = part(place, c);
  kernels::copy(layout_.view(windows_.region().data() + source(flags(), place, c), from.count),
                from);
}

VectorView Staging::landing(std::size_t place, std::size_t c) const {
  return layout_.view(windows_.region().data() + target(flags(), place, c),
                      shards_.of(place, c).size());
}

std::size_t Staging::at(unsigned buffer, bool staged, std::size_t place, std::size_t c) const {
  const std::size_t element = shards_.of(place, staged ? c % window : c).begin;
  return layout_.buffer(buffer) + element * size_of(layout_.dtype);
}

std::size_t Staging::source(unsigned flags, std::size_t place, std::size_t c) const {
  const unsigned current = (flags & second_buffer_flag) != 0 ? layout_.buffers - 1 : 0;
  return at(current, (flags & staged_flag) != 0, place, c);
}

std::size_t Staging::target(unsigned flags, std::size_t place, std::size_t c) const {
  const bool staged = (flags & staged_flag) != 0;
  const unsigned current = (flags & second_buffer_flag) != 0 ? layout_.buffers - 1 : 0;
  return at(staged || in_place() ? current : 1 - current, staged, place, c);
}

VectorView Staging::kept(Range chunk) const {
  std::byte* const other = windows_.region().data() + layout_.buffer(1 - current_);
  return layout_.view(other, layout_.count).slice(chunk.begin, chunk.size());
}

void Staging::keep(std::size_t c) {
  if (!staged_ || in_place()) return;
  for (std::size_t place = 0; place < shards_.shards; ++place) {
    kernels::copy(kept(shards_.of(place, c)), part(place, c));
  }
  kept_ = c + 1;
}

void Staging::restore() {
  for (std::size_t c = 0; c < kept_; ++c) {
    for (std::size_t place = 0; place < shards_.shards; ++place) {
      kernels::copy(part(place, c), kept(shards_.of(place, c)));
    }
  }
}

}  // namespace slip::partial_all_reduce
