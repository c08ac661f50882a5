// Reading and writing integers in byte buffers, bounds checked, both byte orders.
//
// A ByteReader never reads outside its span: a short buffer turns it bad, and everything read
// after that is zero. Check ok() once at the end of a record.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace duplex {

template <class T>
constexpr T to_order(T value, std::endian order) {
  return order == std::endian::native ? value : std::byteswap(value);
}
template <class T>
T load_be(const void* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return to_order(value, std::endian::big);
}
template <class T>
void store_be(void* at, T value) {
  value = to_order(value, std::endian::big);
  std::memcpy(at, &value, sizeof value);
}
template <class T>
T load_le(const void* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return to_order(value, std::endian::little);
}
template <class T>
void store_le(void* at, T value) {
  value = to_order(value, std::endian::little);
  std::memcpy(at, &value, sizeof value);
}

class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes, std::endian order = std::endian::little)
      : bytes_(bytes), order_(order) {}

  template <class T>
  T take() {
    static_assert(std::is_unsigned_v<T>);
    T value = 0;
    if (const std::byte* at = advance(sizeof(T))) {
      std::memcpy(&value, at, sizeof value);
      value = to_order(value, order_);
    }
    return value;
  }
  // The next `length` bytes, or an empty span when there are fewer.
  std::span<const std::byte> take_bytes(size_t length) {
    const std::byte* at = advance(length);
    return at ? std::span(at, length) : std::span<const std::byte>{};
  }
  std::string take_string(size_t length) {
    const auto bytes = take_bytes(length);
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  bool ok() const { return ok_; }
  size_t remaining() const { return bytes_.size() - position_; }
  size_t position() const { return position_; }

 private:
  const std::byte* advance(size_t length) {
    if (!ok_ || length > remaining()) {
      ok_ = false;
      return nullptr;
    }
    const std::byte* at = bytes_.data() + position_;
    position_ += length;
    return at;
  }

  std::span<const std::byte> bytes_;
  std::endian order_;
  size_t position_ = 0;
  bool ok_ = true;
};

class ByteWriter {
 public:
  explicit ByteWriter(std::endian order = std::endian::little) : order_(order) {}

  template <class T>
  void put(T value) {
    static_assert(std::is_unsigned_v<T>);
    value = to_order(value, order_);
    put_bytes(std::as_bytes(std::span(&value, 1)));
  }
  void put_bytes(std::span<const std::byte> bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  void put_string(std::string_view text) { put_bytes(std::as_bytes(std::span(text))); }
  void pad_to(size_t size) {
    if (bytes_.size() < size) bytes_.resize(size);
  }
  size_t size() const { return bytes_.size(); }
  std::vector<std::byte>& bytes() { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
  std::endian order_;
};

}  // namespace duplex
