#include "meshard/sharding/choose.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "meshard/sharding/choice_search.h"

namespace meshard {
namespace {

OpChoice op_choice(ChoiceModel& model, SplitId id) {
  const Split& s = model.split(id);
  OpChoice c{s.split, s.group, s.parts, {}, {}};
  for (LayoutId l : s.needed) c.operands.push_back(model.costs().layout(l));
  for (LayoutId l : s.made) c.results.push_back(model.costs().layout(l));
  return c;
}

std::string split_text(const Mesh& mesh, const ChoiceSignature& signature, const Split& split) {
  std::string text;
  for (size_t k = 0; k < split.split.atoms.size(); ++k) {
    if (split.split.atoms[k].empty()) continue;
    text += fmt::format("{}{} over {}", text.empty() ? "" : ", ", signature.rule.factors[k].name, mesh.atoms_text(split.split.atoms[k]));
  }
  const AtomSet passing = split.split.passing[static_cast<size_t>(Reduction::sum)];
  if (!passing.empty()) text += fmt::format("{}sum over {} passing", text.empty() ? "" : ", ", mesh.atoms_text(passing));
  return text.empty() ? "whole" : text;
}

}  // namespace

Choices choose(const Program& program, const ChooseOptions& options) {
  if (!program.mesh) throw UserError("choose needs a mesh; write a line \"mesh data=2, model=2\" or give --mesh");
  ChoiceSearch search(program, options);
  const std::vector<SplitId> labels = search.run();
  ChoiceModel& model = search.model();
  Choices out;
  out.bytes = ChoiceModel::bytes_of(search.cost());
  out.bound = ChoiceModel::bytes_of(search.bound());
  out.propagated = ChoiceModel::bytes_of(search.propagated());
  out.functions.resize(program.functions.size());
  for (size_t f = 0; f < program.functions.size(); ++f) {
    const Function& in = program.functions[f];
    out.functions[f].ops.resize(in.ops.size());
    out.functions[f].params.resize(in.params.size());
    out.functions[f].returns.resize(in.returns.size());
    out.functions[f].copies.resize(in.values.size());
    for (size_t p = 0; p < in.params.size(); ++p) out.functions[f].params[p] = *in.value(in.params[p]).layout;
    for (size_t r = 0; r < in.returns.size(); ++r) out.functions[f].returns[r] = *in.value(in.returns[r].value).layout;
  }
  for (size_t s = 0; s < labels.size(); ++s) {
    const Site& site = model.sites()[s];
    FunctionChoice& f = out.functions[static_cast<size_t>(site.function)];
    const auto i = static_cast<size_t>(site.index);
    if (site.kind == Site::op) f.ops[i] = op_choice(model, labels[s]);
    else (site.kind == Site::param ? f.params : f.returns)[i] = model.costs().layout(model.split(labels[s]).made[0]);
  }
  for (size_t n = 0; n < model.values().size(); ++n) {
    const ValueNode& v = model.values()[n];
    if (model.node(v.function, v.value) != static_cast<int>(n)) continue;  // before it is brought to its pinned layout
    const LayoutId made = model.made(v, labels);
    std::vector<LayoutId> needs = model.needs(v, labels, made);
    std::erase(needs, made);
    std::sort(needs.begin(), needs.end());
    needs.erase(std::unique(needs.begin(), needs.end()), needs.end());
    if (needs.empty()) continue;
    const auto& copies = model.costs().copies(v.shape, made, needs);
    auto& list = out.functions[static_cast<size_t>(v.function)].copies[index(v.value)];
    for (size_t i = 0; i < needs.size(); ++i) list.push_back({model.costs().layout(needs[i]), copies.parents[i]});
  }
  return out;
}

std::vector<Alternative> alternatives(const Program& program, int function, int op, const ChooseOptions& options) {
  ChoiceSearch first(program, options);
  first.run();
  const int site = first.model().site_of_op(function, op);
  std::vector<Alternative> list;
  if (site < 0) return list;
  const ChoiceSignature& signature = first.model().signature(first.model().sites()[static_cast<size_t>(site)].signature);
  std::vector<SplitId> labels = first.model().list(first.model().all_labels(static_cast<size_t>(site), ChoiceSearch::kMostLabels));
  for (SplitId id : labels) {
    ChoiceSearch search(program, options);
    // Ids are numbered alike: both searches begin with the same steps.
    search.model().all_labels(static_cast<size_t>(site), ChoiceSearch::kMostLabels);
    const Split& want = first.model().split(id);
    for (SplitId mine : search.model().list(search.model().all_labels(static_cast<size_t>(site), ChoiceSearch::kMostLabels))) {
      const Split& have = search.model().split(mine);
      if (have.group != want.group || have.split.atoms != want.split.atoms || have.split.passing != want.split.passing) continue;
      search.force(site, mine);
    }
    search.run();
    if (search.cost() >= kInfinite) continue;
    list.push_back({op_choice(first.model(), id), split_text(*program.mesh, signature, want), ChoiceModel::bytes_of(search.cost())});
  }
  std::stable_sort(list.begin(), list.end(), [](const Alternative& a, const Alternative& b) { return a.bytes < b.bytes; });
  return list;
}

}  // namespace meshard
