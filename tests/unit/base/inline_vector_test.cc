// Lists in place behave as std::vector does, in place and on the heap.
#include "meshard/base/inline_vector.h"

#include <catch2/catch.hpp>
#include <random>
#include <vector>

namespace meshard {
namespace {

using Short = InlineVector<int64_t, 3>;

template <class List>
bool same(const List& list, const std::vector<int64_t>& like) {
  return std::equal(list.begin(), list.end(), like.begin(), like.end()) && list.size() == like.size();
}

TEST_CASE("any sequence of calls does what a vector does") {
  std::mt19937 random(7);
  Short list;
  std::vector<int64_t> like;
  for (int64_t step = 0; step < 20000; ++step) {
    const size_t at = like.empty() ? 0 : random() % like.size();
    const auto offset = static_cast<std::ptrdiff_t>(at);
    switch (random() % 10) {
      case 0:
      case 1:
        list.push_back(step);
        like.push_back(step);
        break;
      case 2:
        if (like.empty()) break;
        list.pop_back();
        like.pop_back();
        break;
      case 3:
        list.insert(list.begin() + offset, step);
        like.insert(like.begin() + offset, step);
        break;
      case 4:
        list.insert(list.begin() + offset, 2, step);
        like.insert(like.begin() + offset, 2, step);
        break;
      case 5: {
        const std::vector<int64_t> more{step, -step, 5};
        list.insert(list.begin() + offset, more.begin(), more.end());
        like.insert(like.begin() + offset, more.begin(), more.end());
        break;
      }
      case 6:
        list.erase(list.begin() + offset, list.end());
        like.erase(like.begin() + offset, like.end());
        break;
      case 7:
        if (like.empty()) break;
        list.erase(list.begin() + offset);
        like.erase(like.begin() + offset);
        break;
      case 8:
        list.resize(at, 9);
        like.resize(at, 9);
        break;
      default: {
        Short copy = list, moved = std::move(list);
        list = copy;
        REQUIRE(same(moved, like));
        moved = std::move(copy);
        list = std::move(moved);
      }
    }
    REQUIRE(same(list, like));
  }
}

TEST_CASE("lists compare as vectors do") {
  CHECK(Short{1, 2} == Short{1, 2});
  CHECK(Short{1, 2} != Short{1, 2, 3});
  CHECK(Short{1, 2} < Short{1, 2, 3});
  CHECK(Short{2} > Short{1, 9, 9, 9});
  CHECK(Short(3, 7) == Short{7, 7, 7});
}

TEST_CASE("a list that takes itself keeps what it has") {
  Short list{1, 2, 3, 4, 5};
  const Short& alias = list;
  list = alias;
  CHECK(same(list, {1, 2, 3, 4, 5}));
  list.push_back(list[0]);
  CHECK(list.back() == 1);
}

TEST_CASE("a list of fixed length is full at its length") {
  FixedVector<uint8_t, 3> list{1, 2};
  list.push_back(3);
  CHECK(list.size() == 3);
  CHECK_THROWS_AS(list.push_back(4), InternalError);
  CHECK(erase_if(list, [](uint8_t x) { return x == 2; }) == 1);
  CHECK(list == FixedVector<uint8_t, 3>{1, 3});
  list.resize(3, 8);
  CHECK(list.back() == 8);
}

}  // namespace
}  // namespace meshard
