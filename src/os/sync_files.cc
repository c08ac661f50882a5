#include "os/sync_files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "base/units.h"

namespace duplex::os {
namespace {

int write_whole(int fd, uint64_t offset, std::span<const std::byte> from) {
  while (!from.empty()) {
    const ssize_t put = pwrite(fd, from.data(), from.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return errno;
    if (put == 0) return EIO;  // a device that takes nothing
    offset += static_cast<uint64_t>(put);
    from = from.subspan(static_cast<size_t>(put));
  }
  return 0;
}

// What one system call writes directly, with its edges.
struct alignas(kBlockBytes) Bounce {
  std::array<std::byte, 256 * kKiB> bytes;
};

class OsSyncFile final : public rt::SyncFile {
 public:
  // `direct`: the same file with O_DIRECT, or -1.
  OsSyncFile(int fd, int direct) : fd_(fd), direct_(direct) {}
  ~OsSyncFile() override {
    close(fd_);
    if (direct_ >= 0) close(direct_);
  }

  int64_t read(uint64_t offset, std::span<std::byte> into) override {
    size_t done = 0;
    while (done < into.size()) {
      const ssize_t got =
          pread(fd_, into.data() + done, into.size() - done, static_cast<off_t>(offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return -errno;
      if (got == 0) break;
      done += static_cast<size_t>(got);
    }
    return static_cast<int64_t>(done);
  }
  int write(uint64_t offset, std::span<const std::byte> from) override {
    if (direct_ >= 0) {
      const int errnum = write_directly(offset, from);
      if (errnum != EINVAL) return errnum;
      // Open may have taken a flag that the file system has no use for.
      close(direct_);
      direct_ = -1;
    }
    return write_whole(fd_, offset, from);
  }
  int sync() override { return fdatasync(fd_) == 0 ? 0 : errno; }
  int truncate(uint64_t bytes) override {
    return ftruncate(fd_, static_cast<off_t>(bytes)) == 0 ? 0 : errno;
  }
  int64_t size() override {
    struct stat status{};
    return fstat(fd_, &status) == 0 ? static_cast<int64_t>(status.st_size) : -errno;
  }
  int lock() override { return flock(fd_, LOCK_EX | LOCK_NB) == 0 ? 0 : errno; }

 private:
  // Whole blocks: at the edges with what is there, beyond the end with zeroes.
  int write_directly(uint64_t offset, std::span<const std::byte> from) {
    if (!bounce_) bounce_ = std::make_unique<Bounce>();
    const std::span<std::byte> bounce(bounce_->bytes);
    while (!from.empty()) {
      const uint64_t head = offset % kBlockBytes;
      const uint64_t count = std::min<uint64_t>(from.size(), bounce.size() - head);
      const auto blocks = bounce.first(round_up(head + count, kBlockBytes));
      if (head != 0) {
        if (const int errnum = read_block(offset - head, blocks); errnum != 0) return errnum;
      }
      if (const uint64_t tail = (head + count) % kBlockBytes; tail != 0) {
        const auto last = blocks.last(kBlockBytes);
        const bool is_read = head != 0 && blocks.size() == kBlockBytes;
        const uint64_t at = offset + count - tail;
        if (const int errnum = is_read ? 0 : read_block(at, last); errnum != 0) return errnum;
      }
      std::memcpy(&blocks[head], from.data(), count);
      if (const int errnum = write_whole(direct_, offset - head, blocks); errnum != 0)
        return errnum;
      offset += count;
      from = from.subspan(count);
    }
    return 0;
  }
  int read_block(uint64_t offset, std::span<std::byte> into) {
    const auto block = into.first(kBlockBytes);
    const int64_t got = read(offset, block);
    if (got < 0) return static_cast<int>(-got);
    std::ranges::fill(block.subspan(static_cast<size_t>(got)), std::byte{});
    return 0;
  }

  const int fd_;
  int direct_;
  std::unique_ptr<Bounce> bounce_;
};

}  // namespace

std::unique_ptr<rt::SyncFile> OsSyncFiles::open(const std::string& path, bool create, int* error) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), 0600);
  *error = fd >= 0 ? 0 : errno;
  if (fd < 0) return nullptr;
  return std::make_unique<OsSyncFile>(fd, ::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_DIRECT));
}
int OsSyncFiles::remove(const std::string& path) { return unlink(path.c_str()) == 0 ? 0 : errno; }
int OsSyncFiles::rename(const std::string& from, const std::string& to) {
  return std::rename(from.c_str(), to.c_str()) == 0 ? 0 : errno;
}
bool OsSyncFiles::exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }
int OsSyncFiles::make_directories(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  return error.value();
}
int OsSyncFiles::sync_directory(const std::string& path) {
  const int fd = ::open(path.empty() ? "." : path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return errno;
  const int error = fsync(fd) == 0 ? 0 : errno;
  close(fd);
  return error;
}

}  // namespace duplex::os
