// fuzz --seed S --programs N [--minimize] [--verbose] [--forward]     random programs, each checked; status 1: one fails
// fuzz --file F [--minimize] [--data SEED] [--whole]                  one program text
//
// A failing program is printed with the number that makes it: `fuzz --seed S --only K` makes it again.
#include <fmt/format.h>

#include <chrono>
#include <cstring>
#include <fstream>
#include <iostream>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "check.h"
#include "generate.h"
#include "meshard/base/error.h"
#include "meshard/ir/parse.h"
#include "meshard/ops/table.h"
#include "minimize.h"
#include "propose.h"

namespace meshard::fuzz {
namespace {

struct Options {
  uint64_t seed = 1;
  int64_t programs = 100;
  int64_t only = -1;
  bool minimize = false, verbose = false, whole = false;
  int64_t most_failures = 5;
  std::string file;
  uint64_t data = 1;
};

// A message without its numbers, names and places: what kind of refusal it is.
std::string pattern(const std::string& message) {
  std::string s = message.substr(0, message.find('\n'));
  s = std::regex_replace(s, std::regex("^[a-z ]*:[0-9:]+ "), "");
  s = std::regex_replace(s, std::regex("%[A-Za-z0-9_.@]+"), "%");
  s = std::regex_replace(s, std::regex("\\[[^\\]]*\\]( \\+ [a-z]+\\([^ ]*\\))*"), "[]");
  return std::regex_replace(s, std::regex("[0-9]+"), "0");
}

void report(const Program& program, const CheckOptions& data, const Verdict& v, const Options& options) {
  std::cout << v.str() << "\n";
  Program shown = program;
  if (options.minimize) {
    const std::string kind = v.kind == Verdict::broken ? pattern(v.message) : "";
    shown = minimize(program, [&](const Program& p) {
      const Verdict w = check_program(p, data);
      return w.kind == v.kind && (kind.empty() || pattern(w.message) == kind);
    });
    std::cout << "smallest: " << check_program(shown, data).str() << "\n";
  }
  std::cout << fmt::format("data seed {}{}\n", data.seed, data.whole_numbers ? ", whole numbers" : "") << print(shown) << "\n" << std::flush;
}

int run_file(const Options& options) {
  std::ifstream in(options.file);
  std::ostringstream text;
  text << in.rdbuf();
  const Program program = parse_program(text.str().substr(0, text.str().find("\n----")), options.file, op_table());
  const CheckOptions data{.seed = options.data, .whole_numbers = options.whole};
  const Verdict v = check_program(program, data);
  if (v.failed() && options.minimize) report(program, data, v, options);
  else std::cout << v.str() << "\n";
  return v.failed() ? 1 : 0;
}

int run_random(const Options& options) {
  std::map<std::string, int64_t> verdicts, refusals;
  std::map<std::string, int64_t> ops;
  const Proposer proposer(op_table());
  for (const std::string& name : proposer.names()) ops[name] = 0;
  int64_t failures = 0, backward = 0, made = 0, rings = 0;
  const auto start = std::chrono::steady_clock::now();
  for (int64_t k = 0; k < options.programs && failures < options.most_failures; ++k) {
    if (options.only >= 0 && k != options.only) continue;
    Rng rng(options.seed + static_cast<uint64_t>(k) * 0x9e3779b97f4a7c15);
    Generated g;
    Verdict v;
    try {
      g = generate(op_table(), rng.next(), k % 2 == 1);
      if (options.verbose) std::cout << fmt::format("# program {}\n", k) << print(g.program) << "\n" << std::flush;
      v = check_program(g.program, g.data);
    } catch (const std::exception& e) {
      std::cout << fmt::format("program {} of seed {}: generating it: {}\n", k, options.seed, e.what());
      ++failures;
      continue;
    }
    ++made;
    backward += g.backward ? 1 : 0;
    for (const Function& f : g.program.functions) {
      for (const Op& op : f.ops) {
        if (op.kind == Op::apply) ++ops[std::string(op.def->name)];
      }
    }
    rings += v.rings;
    ++verdicts[v.str().substr(0, v.str().find(':'))];
    if (v.kind == Verdict::refused) ++refusals[pattern(v.message)];
    if (!v.failed()) continue;
    ++failures;
    std::cout << fmt::format("program {} of seed {}: ", k, options.seed);
    report(g.program, g.data, v, options);
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::cout << fmt::format("{} programs, {} with gradients, {} with rings, {} failures, {:.1f} s\n", made, backward, rings, failures, seconds);
  for (const auto& [kind, count] : verdicts) std::cout << fmt::format("  {:<10} {}\n", kind, count);
  for (const auto& [text, count] : refusals) std::cout << fmt::format("  {:>6}  {}\n", count, text);
  std::string never;
  for (const auto& [name, count] : ops) {
    if (count == 0) never += " " + name;
  }
  if (!never.empty()) std::cout << "ops that no program had:" << never << "\n";
  const bool bad = failures > 0 || (made >= 300 && !never.empty()) || verdicts["refused"] * 5 > made || verdicts["amplified"] * 20 > made;
  return bad ? 1 : 0;
}

int run(int argc, char** argv) {
  Options options;
  const auto usage = [] {
    std::cerr << "fuzz --seed S --programs N [--only K] [--failures N] [--minimize] [--verbose]\n"
                 "fuzz --file F [--data SEED] [--whole] [--minimize]\n";
    return 2;
  };
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--minimize") options.minimize = true;
    else if (flag == "--verbose") options.verbose = true;
    else if (flag == "--whole") options.whole = true;
    else if (i + 1 == argc) return usage();
    else if (flag == "--seed") options.seed = std::stoull(argv[++i]);
    else if (flag == "--programs") options.programs = std::stoll(argv[++i]);
    else if (flag == "--only") options.only = std::stoll(argv[++i]);
    else if (flag == "--failures") options.most_failures = std::stoll(argv[++i]);
    else if (flag == "--file") options.file = argv[++i];
    else if (flag == "--data") options.data = std::stoull(argv[++i]);
    else return usage();
  }
  if (options.only >= options.programs) options.programs = options.only + 1;
  return options.file.empty() ? run_random(options) : run_file(options);
}

}  // namespace
}  // namespace meshard::fuzz

int main(int argc, char** argv) {
  try {
    return meshard::fuzz::run(argc, argv);
  } catch (const std::exception& e) {
    std::cerr << e.what() << "\n";
    return 2;
  }
}
