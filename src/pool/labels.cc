#include "pool/labels.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "base/checksum.h"
#include "base/text.h"
#include "pool/aligned.h"

namespace duplex::pool {
namespace {

Error read_error(rt::File& file, int error) {
  return Error(
      Code::kMediumRead,
      std::string(system_error(error, fmt::format("read {}", file.info().path)).message()));
}

template <class Target>
rt::Task<int> write_copies(Target& target, format::DeviceLabel label) {
  const auto encoded = format::encode_label(label);
  AlignedBytes copy(format::kLabelBytes);
  std::ranges::copy(encoded, copy.span().begin());
  for (const uint64_t offset : format::kLabelOffsets) {
    int error = co_await target.write(offset, copy.span());
    if (error == 0) error = co_await target.flush();
    if (error != 0) co_return error;
  }
  co_return 0;
}

}  // namespace

rt::Task<Result<FoundLabel>> read_label(rt::File& file) {
  AlignedBytes copy(format::kLabelBytes);
  FoundLabel best;
  size_t decoded = 0;
  for (const uint64_t offset : format::kLabelOffsets) {
    if (!range_fits(offset, format::kLabelBytes, file.info().size)) break;
    const int error = co_await file.read(offset, copy.span());
    if (error != 0) co_return std::unexpected(read_error(file, error));
    auto label = format::decode_label(copy.span());
    const bool newer_version = !label && label.error().code() == Code::kNotSupported;
    if (newer_version) co_return std::unexpected(label.error());
    if (!label) continue;
    ++decoded;
    const bool is_later =
        std::tie(label->sequence, label->life) > std::tie(best.label.sequence, best.label.life);
    if (decoded == 1 || is_later) best.label = *std::move(label);
  }
  if (decoded == 0)
    co_return fail(Code::kCorrupt, fmt::format("{} has no label of Duplex", file.info().path),
                   "check the path; if it is the right device, both of its labels are damaged: see "
                   "docs/RECOVERY.md");
  best.is_alone = decoded == 1;
  co_return best;
}

rt::Task<int> write_label(DevicePort& port, format::DeviceLabel label) {
  return write_copies(port, std::move(label));
}

rt::Task<int> write_label(rt::File& file, format::DeviceLabel label) {
  return write_copies(file, std::move(label));
}

rt::Task<int> wipe_label(DevicePort& port) {
  const int error = co_await port.zero(0, 2 * format::kLabelBytes, rt::FileOp::Kind::kZeroNoUnmap);
  if (error != 0) co_return error;
  co_return co_await port.flush();
}

rt::Task<Result<void>> check_unused(rt::File& file, const Uuid& array_uuid) {
  const std::string& path = file.info().path;
  const uint64_t length = round_down(std::min(kMiB, file.info().size), kBlockBytes);
  if (length == 0) co_return Result<void>();
  AlignedBytes head(length);
  if (const int error = co_await file.read(0, head.span()); error != 0) {
    co_return std::unexpected(read_error(file, error));
  }
  const std::string overwrite =
      fmt::format("to destroy what is there: duplex device add {} --overwrite", path);
  const std::string restore = fmt::format(
      "to go on with its volumes: duplexd --rebuild --device {} with a new --state "
      "directory; ",
      path);
  const auto found = co_await read_label(file);
  if (found && found->label.array_uuid == array_uuid) {
    co_return fail(Code::kState,
                   fmt::format("{} carries a label of this array: it is, or was, its device {}",
                               path, found->label.name),
                   restore + overwrite);
  }
  if (found) {
    co_return fail(Code::kState,
                   fmt::format("{} is device {} of array {} ({})", path, found->label.name,
                               found->label.array_name, format_id(found->label.array_id)),
                   restore + overwrite);
  }
  if (found.error().code() == Code::kNotSupported || format::looks_like_label(head.span())) {
    co_return fail(
        Code::kState,
        fmt::format("{} carries a damaged label of Duplex, or one of a newer version", path),
        overwrite);
  }
  if (const std::string content = format::recognise_content(head.span()); !content.empty()) {
    co_return fail(Code::kState, fmt::format("{} carries {}", path, content), overwrite);
  }
  if (!is_zero(head.span())) {
    co_return fail(Code::kState, fmt::format("{} carries data of an unknown kind", path),
                   overwrite);
  }
  co_return Result<void>();
}

}  // namespace duplex::pool
