// The HTML page of a plan, in one file that needs no server and no network: mesh, plan, program by layer with the layouts drawn
// as blocks, bytes by cause, and why each collective is there. The template is launch/page.html.
//
//   write_text("plan.html", plan_page({"gpt-124m", "batch 8 x 128 tokens", plan.file(), plan.text()}, explained));
#pragma once

#include <string>
#include <string_view>

#include "meshard/runtime/explained.h"

namespace meshard {

struct PageHead {
  std::string title, subtitle;
  std::string source_name, source_text;  // of the plan, or of the program text
};

std::string plan_page(const PageHead& head, const Explained& explained);

std::string_view page_template();  // launch/page.html, with @DATA@ where the JSON goes

}  // namespace meshard
