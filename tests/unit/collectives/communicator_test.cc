#include "meshard/collectives/communicator.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "meshard/collectives/lockstep.h"
#include "meshard/collectives/reduce.h"

namespace meshard {
namespace {

// A communicator whose ranks' texts are given beforehand: text by text, one round after the other.
class Scripted : public Communicator {
 public:
  explicit Scripted(std::vector<std::vector<std::string>> rounds) : rounds_(std::move(rounds)) {}
  int size() const override { return static_cast<int>(rounds_[0].size()); }
  Rank rank() const override { return Rank{0}; }
  std::string_view kind() const override { return "scripted"; }
  Ticket start(const CollectiveCall&) override { return 0; }
  void wait(Ticket) override {}
  int64_t received_bytes() const override { return 0; }
  const CallLog& log() const override { return log_; }
  std::vector<std::string> gather_text(std::string_view) override { return rounds_.at(next_++); }
  void barrier() override {}

 private:
  std::vector<std::vector<std::string>> rounds_;
  size_t next_ = 0;
  CallLog log_;
};

std::string plan_difference(std::vector<std::string> texts) {
  Scripted comm({{"a", "b"}, std::move(texts)});
  try {
    agree_on_text(comm, "plan", "");
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

TEST_CASE("ranks_text") {
  auto text = [](int n) {
    std::vector<Rank> ranks;
    for (int r = 0; r < n; ++r) ranks.push_back(static_cast<Rank>(2 * r));
    return ranks_text(ranks);
  };
  CHECK(text(1) == "rank 0");
  CHECK(text(2) == "ranks 0 and 2");
  CHECK(text(3) == "ranks 0, 2 and 4");
  CHECK(text(8) == "ranks 0, 2, 4, 6, 8, 10, 12 and 14");
  CHECK(text(11) == "ranks 0, 2, 4, 6, 8, 10, 12, 14 and 3 more");
}

TEST_CASE("block_begin is ceil(i n / p)") {
  for (int64_t n : {0, 1, 5, 6, 17}) {
    for (int p : {1, 2, 3, 4, 8}) {
      for (int i = 0; i <= p; ++i) CHECK(block_begin(n, p, i) == (i * n + p - 1) / p);
    }
  }
  CHECK(block_begin(int64_t{1} << 61, 1024, 1024) == int64_t{1} << 61);
}

TEST_CASE("agree: one error for all ranks, naming whose it is") {
  auto message = [](std::vector<std::string> errors) -> std::string {
    Scripted comm({std::move(errors)});
    try {
      agree(comm, "");
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  };
  CHECK(message({"", "", ""}) == "");
  CHECK(message({"", "", "cannot open tokens.bin"}) == "rank 2: cannot open tokens.bin");
  CHECK(message({"no space", "", "no space"}) == "ranks 0 and 2: no space");
  CHECK(message({"no space", "no space"}) == "no space");
  std::string both = message({"", "cannot open a", "", "cannot open b"});
  CHECK_THAT(both, Catch::StartsWith("rank 1: cannot open a"));
  CHECK_THAT(both, Catch::Contains("rank 3: cannot open b"));
}

TEST_CASE("agree_on_text names the ranks and the first line that differs") {
  {
    Scripted same({{"a", "a", "a"}});
    agree_on_text(same, "plan", "x");
  }
  CHECK(plan_difference({"mesh a=2\nx [a]\n", "mesh a=2\nx [-]\n", "mesh a=2\nx [a]\n"}) ==
        "ranks 0 and 2 have another plan than rank 1: first difference at line 2: rank 0 has \"x [a]\", rank 1 has \"x "
        "[-]\"");
  CHECK(plan_difference({"one\ntwo\nthree\n", "one\ntwo\n"}) ==
        "rank 0 has another plan than rank 1: first difference at line 3: rank 0 has \"three\", rank 1 ends before it");
  CHECK(plan_difference({"", "one"}) ==
        "rank 0 has another plan than rank 1: first difference at line 1: rank 0 ends before it, rank 1 has \"one\"");
  CHECK(plan_difference({"one\n", "one"}) ==
        "rank 0 has another plan than rank 1: only one of them ends with a newline");
  CHECK_THAT(plan_difference({"a", "b", "c", "a"}), Catch::Contains("ranks 0 and 3 have another plan than rank 1") &&
                                                        Catch::Contains("rank 2 has yet another plan"));
}

TEST_CASE("lockstep: control messages show a world of identical ranks") {
  auto comms = lockstep_communicators(3);
  CHECK(comms[1]->gather_text("x") == std::vector<std::string>{"x", "x", "x"});
  CHECK(comms[2]->size() == 3);
  CHECK(comms[2]->rank() == Rank{2});
  CHECK(comms[2]->kind() == "lockstep");
  comms[0]->barrier();
  agree(*comms[0], "");
  agree_on_text(*comms[0], "plan", "mesh a=3");
}

TEST_CASE("the log keeps the last calls") {
  CallLog log(4);
  Mesh mesh = Mesh::parse("a=2");
  Group group(mesh, mesh.all(), Rank{0});
  std::string long_label(100, 'x');
  for (int64_t i = 0; i < 6; ++i) {
    CHECK(log.begin({.kind = Collective::all_reduce,
                     .group = &group,
                     .send_elements = i,
                     .label = i == 5 ? long_label : "h"}) == i);
  }
  log.end(4);
  log.end(1);  // no longer in the ring: nothing happens
  CHECK(log.calls() == 6);
  CHECK(log.bytes() == 4 * (0 + 1 + 2 + 3 + 4 + 5));
  CHECK(log.find(1) == nullptr);
  CHECK(log.find(6) == nullptr);
  CHECK(log.find(4)->done);
  CHECK_FALSE(log.find(5)->done);
  CHECK(log.find(5)->label == std::string(63, 'x'));
  CHECK(log.find(4)->over == mesh.all());
  std::vector<CallRecord> last = log.last(3);
  REQUIRE(last.size() == 3);
  CHECK(last[0].number == 3);
  CHECK(last[2].number == 5);
  CHECK(log.last(100).size() == 4);
}

TEST_CASE("sums are made in the order of the members, whatever the length") {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (int64_t n : {1, 7, 1023, 1024, 1025, 5000}) {
    for (size_t p : {2, 3, 5}) {
      std::vector<std::vector<float>> in(p, std::vector<float>(static_cast<size_t>(n)));
      std::vector<const void*> parts;
      for (auto& part : in) {
        for (float& v : part) v = normal(random) * 1e3f;
        parts.push_back(part.data());
      }
      std::vector<float> expected = in[0];
      for (size_t m = 1; m < p; ++m) {
        for (size_t e = 0; e < expected.size(); ++e) expected[e] += in[m][e];
      }
      // The result may take the place of any part, of the last one too.
      for (size_t place = 0; place <= p; ++place) {
        std::vector<std::vector<float>> copies = in;
        std::vector<float> apart(static_cast<size_t>(n));
        for (size_t m = 0; m < p; ++m) parts[m] = copies[m].data();
        float* out = place < p ? copies[place].data() : apart.data();
        reduce_blocks(Reduction::sum, Dtype::f32, out, parts, n);
        CHECK(std::memcmp(out, expected.data(), static_cast<size_t>(n) * 4) == 0);
      }
    }
  }
}

TEST_CASE("bf16 is summed in f32 and rounded once") {
  // 256 + 1 + 1 is 258; rounding after each step would give 256 twice.
  bfloat16 a(256.0f), b(1.0f), c(1.0f), out;
  const void* parts[] = {&a, &b, &c};
  reduce_blocks(Reduction::sum, Dtype::bf16, &out, parts, 1);
  CHECK(static_cast<float>(out) == 258.0f);
  // Halfway between two bf16: to the even one. 256 + 1 is halfway between 256 and 258, 258 + 1 between 258 and 260.
  const void* down[] = {&a, &b};
  reduce_blocks(Reduction::sum, Dtype::bf16, &out, down, 1);
  CHECK(static_cast<float>(out) == 256.0f);
  bfloat16 d(258.0f);
  const void* up[] = {&d, &b};
  reduce_blocks(Reduction::sum, Dtype::bf16, &out, up, 1);
  CHECK(static_cast<float>(out) == 260.0f);
}

TEST_CASE("f16 is summed in f32 and rounded once, small and large numbers too") {
  std::vector<float16> a, b, c, out;
  uint32_t bits = 1;
  for (int i = 0; i < 70001; ++i) {
    float16 x, y;
    x.bits = static_cast<uint16_t>(i);
    y.bits = static_cast<uint16_t>((bits = bits * 1664525 + 1013904223) >> 16);
    a.push_back(x);
    b.push_back(y);
    c.push_back(float16(static_cast<float>(i % 7) * 1e-6f));
  }
  out.resize(a.size());
  const void* parts[] = {a.data(), b.data(), c.data()};
  reduce_blocks(Reduction::sum, Dtype::f16, out.data(), parts, static_cast<int64_t>(a.size()));
  int wrong = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const float16 sum(static_cast<float>(a[i]) + static_cast<float>(b[i]) + static_cast<float>(c[i]));
    const bool nan = std::isnan(static_cast<float>(sum));
    wrong += nan ? !std::isnan(static_cast<float>(out[i])) : sum.bits != out[i].bits;
  }
  CHECK(wrong == 0);
}

TEST_CASE("a NaN is never lost, integers wrap around") {
  float nan = std::numeric_limits<float>::quiet_NaN(), one = 1, out = 0;
  for (Reduction reduction : {Reduction::sum, Reduction::max, Reduction::min}) {
    const void* first[] = {&nan, &one};
    reduce_blocks(reduction, Dtype::f32, &out, first, 1);
    CHECK(std::isnan(out));
    const void* second[] = {&one, &nan, &one};
    reduce_blocks(reduction, Dtype::f32, &out, second, 1);
    CHECK(std::isnan(out));
    bfloat16 half(nan), half_one(1.0f), half_out;
    const void* halves[] = {&half_one, &half};
    reduce_blocks(reduction, Dtype::bf16, &half_out, halves, 1);
    CHECK(std::isnan(static_cast<float>(half_out)));
  }
  int32_t big = std::numeric_limits<int32_t>::max(), two = 2, sum = 0;
  const void* parts[] = {&big, &two};
  reduce_blocks(Reduction::sum, Dtype::i32, &sum, parts, 1);
  CHECK(sum == std::numeric_limits<int32_t>::min() + 1);
}

}  // namespace
}  // namespace meshard
