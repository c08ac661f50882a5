#include "os/sync_files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>

namespace duplex::os {
namespace {

class OsSyncFile final : public rt::SyncFile {
 public:
  explicit OsSyncFile(int fd) : fd_(fd) {}
  ~OsSyncFile() override { close(fd_); }

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
    while (!from.empty()) {
      const ssize_t put = pwrite(fd_, from.data(), from.size(), static_cast<off_t>(offset));
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) return errno;
      if (put == 0) return EIO;  // a device that takes nothing
      offset += static_cast<uint64_t>(put);
      from = from.subspan(static_cast<size_t>(put));
    }
    return 0;
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
  const int fd_;
};

}  // namespace

std::unique_ptr<rt::SyncFile> OsSyncFiles::open(const std::string& path, bool create, int* error) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), 0600);
  *error = fd >= 0 ? 0 : errno;
  return fd >= 0 ? std::make_unique<OsSyncFile>(fd) : nullptr;
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
