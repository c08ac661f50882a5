// I/O done with plain system calls: files of tmpfs, the thread pool, sends that go out at once.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/units.h"
#include "os/engine.h"

namespace duplex::os {
namespace {

int transfer(const rt::FileOp& op, int fd) {
  uint64_t done = 0;
  while (done < op.data.size()) {
    std::byte* at = op.data.data() + done;
    const size_t left = op.data.size() - done;
    const auto offset = static_cast<off_t>(op.offset + done);
    const ssize_t moved = op.kind == rt::FileOp::Kind::kRead ? pread(fd, at, left, offset)
                                                             : pwrite(fd, at, left, offset);
    if (moved < 0 && errno == EINTR) continue;
    if (moved < 0) return errno;
    if (moved == 0) return EIO;  // end of file, or a device that takes nothing
    done += static_cast<uint64_t>(moved);
  }
  return 0;
}

int zero_range(const rt::FileOp& op, rt::FileOp::Kind kind, int fd) {
  while (fallocate(fd, zero_mode(kind), static_cast<off_t>(op.offset),
                   static_cast<off_t>(op.length)) != 0) {
    if (errno != EINTR) return errno;
  }
  return 0;
}

}  // namespace

int send_inline(int fd, rt::StreamOp& op) {
  while (op.part_count > 0) {
    msghdr message{};
    message.msg_iov = op.parts;
    message.msg_iovlen = static_cast<size_t>(op.part_count);
    const ssize_t result = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (result < 0 && errno == EINTR) continue;
    if (result < 0) return errno;
    skip_sent(op, static_cast<size_t>(result));
  }
  return 0;
}

int zero_mode(rt::FileOp::Kind kind) {
  return kind == rt::FileOp::Kind::kZeroNoUnmap ? FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE
                                                : FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
}

int write_zeroes(int fd, uint64_t offset, uint64_t length) {
  // Anonymous memory is zero and aligned, and costs one page table entry per page of the piece.
  constexpr uint64_t kPiece = kMiB;
  static std::byte* const zeroes =
      static_cast<std::byte*>(mmap(nullptr, kPiece, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  while (length > 0) {
    rt::FileOp op;
    op.kind = rt::FileOp::Kind::kWrite;
    op.offset = offset;
    op.data = {zeroes, std::min(length, kPiece)};
    if (const int error = transfer(op, fd)) return error;
    offset += op.data.size();
    length -= op.data.size();
  }
  return 0;
}

int run_blocking(const rt::FileOp& op, int fd) {
  switch (op.kind) {
    case rt::FileOp::Kind::kRead:
    case rt::FileOp::Kind::kWrite:
      return transfer(op, fd);
    case rt::FileOp::Kind::kFlush:
      return fdatasync(fd) == 0 ? 0 : errno;
    case rt::FileOp::Kind::kZero:
    case rt::FileOp::Kind::kZeroNoUnmap:
    case rt::FileOp::Kind::kZeroFast:
      break;
  }
  int error = zero_range(op, op.kind, fd);
  // A disk that cannot unmap, like most hard disks: the kernel writes the zeroes.
  if (error == EOPNOTSUPP && op.kind == rt::FileOp::Kind::kZero) {
    error = zero_range(op, rt::FileOp::Kind::kZeroNoUnmap, fd);
  }
  if (error != EOPNOTSUPP || op.kind == rt::FileOp::Kind::kZeroFast) return error;
  return write_zeroes(fd, op.offset, op.length);
}

}  // namespace duplex::os
