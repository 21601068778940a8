// Short lists without the heap. Shapes, layouts and lists of mesh atoms are made and compared by the million while a
// program is planned, and have a few entries each.
//
//   InlineVector<int64_t, 5> sizes = {32, 1024};   // five entries in place; longer ones on the heap
//   FixedVector<uint8_t, 24> atoms;                // never more than 24; copied as plain bytes
//
// The names and meanings are those of std::vector, as far as they are there. Entries are plain data.
#pragma once

#include <algorithm>
#include <compare>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <iterator>
#include <type_traits>

#include "meshard/base/error.h"

namespace meshard {

// What both lists share: everything said by begin, size and `grow`, which makes room for n entries and keeps those there.
template <class Self, class T>
class ListInterface {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

 public:
  using value_type = T;
  using size_type = size_t;
  using difference_type = std::ptrdiff_t;
  using reference = T&;
  using const_reference = const T&;
  using iterator = T*;
  using const_iterator = const T*;

  iterator begin() { return self().data(); }
  iterator end() { return begin() + self().size(); }
  const_iterator begin() const { return self().data(); }
  const_iterator end() const { return begin() + self().size(); }
  bool empty() const { return self().size() == 0; }
  T& operator[](size_t i) { return begin()[i]; }
  const T& operator[](size_t i) const { return begin()[i]; }
  T& front() { return begin()[0]; }
  const T& front() const { return begin()[0]; }
  T& back() { return end()[-1]; }
  const T& back() const { return end()[-1]; }

  void push_back(T value) {
    const size_t n = self().size();
    self().grow(n + 1);
    ::new (begin() + n) T(value);
    self().set_size(n + 1);
  }
  template <class... Args>
  T& emplace_back(Args&&... args) {
    push_back(T{std::forward<Args>(args)...});
    return back();
  }
  void pop_back() { self().set_size(self().size() - 1); }
  void clear() { self().set_size(0); }
  void resize(size_t n, T value = T()) {
    self().grow(n);
    for (size_t i = self().size(); i < n; ++i) ::new (begin() + i) T(value);
    self().set_size(n);
  }
  template <class It>
  void assign(It first, It last) {
    clear();
    insert(end(), first, last);
  }
  iterator insert(const_iterator at, T value) { return insert(at, size_t{1}, value); }
  iterator insert(const_iterator at, size_t n, T value) {
    T* const hole = make_hole(at, n);
    for (size_t i = 0; i < n; ++i) ::new (hole + i) T(value);
    return hole;
  }
  // Not from this very list.
  template <class It>
    requires std::forward_iterator<It>
  iterator insert(const_iterator at, It first, It last) {
    T* hole = make_hole(at, static_cast<size_t>(std::distance(first, last)));
    T* const begun = hole;
    for (; first != last; ++first) ::new (hole++) T(*first);
    return begun;
  }
  iterator erase(const_iterator at) { return erase(at, at + 1); }
  iterator erase(const_iterator first, const_iterator last) {
    T* const hole = begin() + (first - begin());
    std::copy(last, static_cast<const_iterator>(end()), hole);
    self().set_size(self().size() - static_cast<size_t>(last - first));
    return hole;
  }

  template <class Predicate>
  friend size_t erase_if(Self& list, Predicate predicate) {
    const auto kept = std::remove_if(list.begin(), list.end(), predicate);
    const auto erased = static_cast<size_t>(list.end() - kept);
    list.erase(kept, list.end());
    return erased;
  }

  friend bool operator==(const Self& a, const Self& b) { return std::equal(a.begin(), a.end(), b.begin(), b.end()); }
  friend auto operator<=>(const Self& a, const Self& b)
    requires std::three_way_comparable<T>
  {
    return std::lexicographical_compare_three_way(a.begin(), a.end(), b.begin(), b.end());
  }

 private:
  Self& self() { return static_cast<Self&>(*this); }
  const Self& self() const { return static_cast<const Self&>(*this); }

  T* make_hole(const_iterator at, size_t n) {
    const auto offset = static_cast<size_t>(at - begin());
    const size_t old = self().size();
    self().grow(old + n);
    T* const hole = begin() + offset;
    std::copy_backward(hole, begin() + old, begin() + old + n);
    self().set_size(old + n);
    return hole;
  }
};

// More than kMost entries are an InternalError.
template <class T, size_t kMost>
class FixedVector : public ListInterface<FixedVector<T, kMost>, T> {
  static_assert(kMost < 256);

 public:
  FixedVector() = default;
  FixedVector(std::initializer_list<T> list) { this->assign(list.begin(), list.end()); }
  explicit FixedVector(size_t n, T value = T()) { this->resize(n, value); }
  template <class It>
    requires std::forward_iterator<It>
  FixedVector(It first, It last) {
    this->assign(first, last);
  }

  T* data() { return entries_; }
  const T* data() const { return entries_; }
  size_t size() const { return size_; }

 private:
  friend ListInterface<FixedVector, T>;
  void grow(size_t n) { MESHARD_CHECK(n <= kMost, "a list of fixed length is full"); }
  void set_size(size_t n) { size_ = static_cast<uint8_t>(n); }

  T entries_[kMost] = {};
  uint8_t size_ = 0;
};

template <class T, size_t kInline>
class InlineVector : public ListInterface<InlineVector<T, kInline>, T> {
 public:
  InlineVector() {}  // NOLINT: the entries are made when they are there
  InlineVector(std::initializer_list<T> list) : InlineVector(list.begin(), list.end()) {}
  explicit InlineVector(size_t n, T value = T()) { this->resize(n, value); }
  template <class It>
    requires std::forward_iterator<It>
  InlineVector(It first, It last) {
    this->assign(first, last);
  }
  InlineVector(const InlineVector& other) { copy(other); }
  InlineVector(InlineVector&& other) noexcept { take(other); }
  InlineVector& operator=(const InlineVector& other) {
    if (this != &other) {
      size_ = 0;
      copy(other);
    }
    return *this;
  }
  InlineVector& operator=(InlineVector&& other) noexcept {
    if (this != &other) {
      release();
      take(other);
    }
    return *this;
  }
  ~InlineVector() { release(); }

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return size_; }
  void reserve(size_t n) { grow(n); }

 private:
  friend ListInterface<InlineVector, T>;
  T* own() { return reinterpret_cast<T*>(inline_); }

  void grow(size_t n) {
    if (n <= capacity_) return;
    const size_t capacity = std::max<size_t>(n, 2 * size_t{capacity_});
    T* const larger = static_cast<T*>(::operator new(capacity * sizeof(T), std::align_val_t(alignof(T))));
    std::memcpy(static_cast<void*>(larger), data_, size_ * sizeof(T));
    const uint32_t size = size_;
    release();
    data_ = larger;
    capacity_ = static_cast<uint32_t>(capacity);
    size_ = size;
  }
  void set_size(size_t n) { size_ = static_cast<uint32_t>(n); }

  void copy(const InlineVector& other) {
    grow(other.size_);
    std::memcpy(static_cast<void*>(data_), other.data_, other.size_ * sizeof(T));
    size_ = other.size_;
  }
  // Requires that nothing is on the heap here.
  void take(InlineVector& other) {
    if (other.data_ == other.own()) {
      std::memcpy(inline_, other.inline_, other.size_ * sizeof(T));
      size_ = other.size_;
    } else {
      data_ = other.data_;
      size_ = other.size_;
      capacity_ = other.capacity_;
      other.data_ = other.own();
      other.capacity_ = kInline;
    }
    other.size_ = 0;
  }
  void release() {
    if (data_ != own()) ::operator delete(data_, std::align_val_t(alignof(T)));
    data_ = own();
    capacity_ = kInline;
    size_ = 0;
  }

  T* data_ = own();
  uint32_t size_ = 0, capacity_ = kInline;
  alignas(T) std::byte inline_[kInline * sizeof(T)];
};

}  // namespace meshard
