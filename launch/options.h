// What the subcommands of meshard read alike: flags of a model, plans, files.
#pragma once

#include <string>
#include <vector>

#include "meshard/launch/args.h"
#include "meshard/launch/train.h"

namespace meshard {

std::vector<Flag> model_flags();
// The same with those that say which rewrites of the local program run, and how: --without, --bucket, --memory, --ring, --overlap.
std::vector<Flag> with_optimize_flags(std::vector<Flag> flags);
void set_optimize(const Args& args, CompileOptions& options);
// --threads, or this process's share of the cores; no more than there are.
int threads_of(const Args& args, const Job& job);
// Of --dtype bf16 or f16, and --keep-f32.
std::optional<MixedOptions> mixed_options(const Args& args);
TrainOptions model_options(const Args& args, const Job& job);

// Errors name the file and say what to check; `what` is what was looked for: "program".
std::string read_text(const std::string& path, const char* what);
void write_text(const std::string& path, const std::string& text);
// A name of the library's plans, or a file.
Plan load_plan(const std::string& name);
// The program text with its mesh line replaced, line for line, or with one put in front.
std::string with_mesh(const std::string& text, const Mesh& mesh);

void no_positional(const Args& args);
void only_one_process(const Job& job, const char* command);

}  // namespace meshard
