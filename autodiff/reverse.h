// One function in reverse: for each op, last first, its vjp is appended to the target.
#pragma once

#include <map>
#include <set>
#include <utility>
#include <vector>

#include "meshard/autodiff/vjp_functions.h"

namespace meshard {

class Reverse {
 public:
  // The target is the primal function itself or another. In another, values of the primal become its parameters, and
  // those that are cheap are made again; the caller prunes what was not needed.
  Reverse(Trace& trace, VjpFunctions& functions, int primal, int target);

  // The cotangent with which the reverse pass begins at a value of the primal.
  void seed(ValueId value, Value cotangent) { seeds_.emplace_back(value, cotangent); }
  // The primal has been straightened.
  void run(const std::vector<ValueId>& wrt);

  ValueId root(ValueId v) const;                 // the parameter of which v is a use, or v
  Value cotangent(ValueId v) const;              // of one of `wrt`; none: no path
  bool summed(ValueId v) const;                  // whether it is marked as a parameter's gradient
  bool is_parameter(ValueId v) const;            // of the model, as far as the primal shows
  void rename(Value value, std::string wanted);  // of the target; what is taken gets .1, .2 ... appended
  const std::set<int>& made_again() const { return made_again_; }  // ops of the target

 private:
  struct Sum {
    Value total;
    int terms = 0;
    int parts = 0;       // named X.d.1, X.d.2 ...
    bool named = false;  // the total is called after this value
    bool summed = false;
    bool complete = false;
  };
  // A cotangent on its way to a value of the primal.
  struct Term {
    ValueId to = ValueId::none;
    Value cotangent;
    bool summed = false;
    bool named = false;
  };

  Value primal(ValueId v);
  std::vector<Term> apply(const Op& op);
  std::vector<Term> call(size_t at);  // the op's index
  // Terms with ids from `values_before` on were made for the op at index `op` and get names.
  void receive(std::vector<Term> terms, size_t values_before, int op);
  void add_term(const Term& term);
  void complete(ValueId v);
  bool wants(ValueId v) const;
  Value cotangent_of_result(ValueId v) const;
  const ValueInfo& info(ValueId v) const { return primal_->value(v); }

  void separate_names(size_t values_before);

  Trace* trace_;
  VjpFunctions* functions_;
  Builder* target_;
  Function* primal_;
  int primal_index_;
  bool same_;
  std::vector<std::pair<ValueId, Value>> seeds_;
  std::vector<bool> depends_;
  std::vector<int> first_user_;  // by root: the first op that may add to its cotangent
  std::map<ValueId, Sum> sums_;  // by root
  std::map<ValueId, Value> copies_;
  std::set<int> made_again_;
};

}  // namespace meshard
