#include "meshard/layout/block.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <numeric>
#include <random>

#include "meshard/base/error.h"

namespace meshard {
namespace {

std::vector<int64_t> sizes(int64_t elements, int64_t parts) {
  std::vector<int64_t> out;
  for (int64_t i = 0; i < parts; ++i) out.push_back(block(elements, parts, i).size);
  return out;
}

// Copies element by element: the plain twin of copy_rect.
void copy_plainly(const std::byte* source, const Rect& from, std::byte* target, const Rect& to, const Rect& part,
                  int64_t bytes) {
  for (int64_t i = 0; i < part.elements(); ++i) {
    int64_t rest = i, read = 0, write = 0, read_stride = bytes, write_stride = bytes;
    for (size_t d = part.dims.size(); d-- > 0;) {
      const int64_t at = part.dims[d].begin + rest % part.dims[d].size;
      rest /= part.dims[d].size;
      read += (at - from.dims[d].begin) * read_stride;
      write += (at - to.dims[d].begin) * write_stride;
      read_stride *= from.dims[d].size;
      write_stride *= to.dims[d].size;
    }
    std::copy_n(source + read, bytes, target + write);
  }
}

}  // namespace

TEST_CASE("blocks differ by one element at most") {
  CHECK(sizes(5, 4) == std::vector<int64_t>{2, 1, 1, 1});
  CHECK(sizes(5, 2) == std::vector<int64_t>{3, 2});
  CHECK(sizes(1, 4) == std::vector<int64_t>{1, 0, 0, 0});
  CHECK(sizes(0, 3) == std::vector<int64_t>{0, 0, 0});
  CHECK(sizes(8, 4) == std::vector<int64_t>{2, 2, 2, 2});
  for (int64_t n = 0; n < 40; ++n) {
    for (int64_t p = 1; p < 20; ++p) {
      int64_t end = 0;
      for (int64_t i = 0; i < p; ++i) {
        const Block b = block(n, p, i);
        REQUIRE(b.begin == end);
        REQUIRE((b.size == n / p || b.size == (n + p - 1) / p));
        end = b.end();
      }
      REQUIRE(end == n);
    }
  }
}

TEST_CASE("coarse blocks are unions of fine ones") {
  for (int64_t n = 0; n < 30; ++n) {
    for (int64_t coarse : {2, 3, 4}) {
      for (int64_t fine : {2, 3, 5}) {
        for (int64_t i = 0; i < coarse; ++i) {
          REQUIRE(block(n, coarse, i).begin == block(n, coarse * fine, i * fine).begin);
          REQUIRE(block(n, coarse, i).end() == block(n, coarse * fine, i * fine + fine - 1).end());
        }
      }
    }
  }
}

TEST_CASE("blocks of huge dimensions do not overflow") {
  const int64_t n = int64_t{1} << 61, p = int64_t{1} << 24;
  CHECK(block(n + 1, p, p - 1).end() == n + 1);
  CHECK(block(n + 1, p, 0).size == n / p + 1);
  CHECK(block(n, p, p / 2).begin == n / 2);
}

TEST_CASE("blocks and rectangles meet") {
  CHECK(intersect(Block{2, 4}, Block{4, 9}) == Block{4, 2});
  CHECK(intersect(Block{0, 2}, Block{5, 2}).size == 0);
  CHECK(intersect(Block{5, 0}, Block{0, 9}).size == 0);
  const Rect a{{{0, 4}, {2, 3}}}, b{{{1, 9}, {0, 3}}};
  CHECK(intersect(a, b) == Rect{{{1, 3}, {2, 1}}});
  CHECK(a.elements() == 12);
  CHECK(a.shape() == Shape{4, 3});
  CHECK(Rect{}.elements() == 1);
  CHECK_THROWS_AS(intersect(a, Rect{}), InternalError);
}

TEST_CASE("what a rank holds") {
  const Mesh mesh = Mesh::parse("data=2, model=4");
  const Layout layout = Layout::parse("[data, -, model]", mesh);
  CHECK(local_rect(mesh, {5, 3, 6}, layout, Rank{6}) == Rect{{{3, 2}, {0, 3}, {3, 2}}});
  CHECK(local_shape(mesh, {5, 3, 6}, layout, Rank{7}) == Shape{2, 3, 1});
  CHECK(local_elements(mesh, {1, 3, 6}, layout, Rank{7}) == 0);
  CHECK(local_shape(mesh, {}, Layout(0), Rank{7}) == Shape{});
  CHECK_THROWS_AS(local_shape(mesh, {5}, layout, Rank{0}), InternalError);
  // Minor first: the blocks of the second factor of model are the larger ones.
  const Layout twisted = Layout::parse("[(model:(2)2,model:2)]", mesh);
  CHECK(local_rect(mesh, {8}, twisted, Rank{1}) == Rect{{{4, 2}}});
}

TEST_CASE("sums and maxima over ranks, without visiting them") {
  for (const char* axes : {"a=2, b=4", "a=3, b=2", "a=1, b=5"}) {
    const Mesh mesh = Mesh::parse(axes);
    for (const char* text : {"[-, -]", "[a, b]", "[(b,a), -]", "[-, a] + sum(b)", "[-, b]"}) {
      const Layout layout = Layout::parse(text, mesh);
      for (const Shape& shape : {Shape{5, 3}, Shape{1, 7}, Shape{0, 4}, Shape{8, 8}}) {
        int64_t sum = 0, largest = 0;
        for (int32_t r = 0; r < mesh.size(); ++r) {
          const int64_t here = local_elements(mesh, shape, layout, Rank{r});
          sum += here;
          largest = std::max(largest, here);
        }
        CHECK(all_local_elements(mesh, shape, layout) == sum);
        CHECK(largest_local_elements(mesh, shape, layout) == largest);
      }
    }
  }
}

TEST_CASE("copies between blocks equal the plain loop") {
  std::mt19937 random(7);
  const auto below = [&](int64_t n) { return static_cast<int64_t>(random() % static_cast<uint64_t>(n)); };
  for (int round = 0; round < 4000; ++round) {
    const auto rank = static_cast<size_t>(below(5));
    Rect from, to, part;
    for (size_t d = 0; d < rank; ++d) {
      // Often the part is all of one array or of both, so that loops merge.
      const Block p{10 + below(3), below(8) == 0 ? 0 : 1 + below(4)};
      const auto around = [&] {
        const int64_t before = below(2) * below(3), after = below(2) * below(3);
        return Block{p.begin - before, before + p.size + after};
      };
      part.dims.push_back(p);
      from.dims.push_back(around());
      to.dims.push_back(around());
    }
    const int64_t bytes = std::vector<int64_t>{1, 2, 3, 4, 8}[static_cast<size_t>(below(5))];
    std::vector<std::byte> source(static_cast<size_t>(from.elements() * bytes));
    for (std::byte& b : source) b = static_cast<std::byte>(random());
    std::vector<std::byte> target(static_cast<size_t>(to.elements() * bytes), std::byte{0xEE}), expected = target;
    copy_plainly(source.data(), from, expected.data(), to, part, bytes);
    copy_rect(source.data(), from, target.data(), to, part, bytes);
    REQUIRE(target == expected);
  }
}

TEST_CASE("a copy outside its arrays is refused") {
  float source[4] = {}, target[4] = {};
  CHECK_THROWS_AS(copy_rect(source, {{{0, 4}}}, target, {{{0, 4}}}, {{{2, 3}}}, 4), InternalError);
  CHECK_THROWS_AS(copy_rect(source, {{{0, 4}}}, target, {{{3, 1}}}, {{{2, 2}}}, 4), InternalError);
  CHECK_THROWS_AS(copy_rect(source, {{{0, 4}}}, target, {}, {{{2, 2}}}, 4), InternalError);
}

}  // namespace meshard
