# cmake -DPAGE=page.html -DOUT=page_text.cc -P embed_page.cmake: writes the template into a C++ file.
file(READ ${PAGE} text)
file(WRITE ${OUT} "// Made by launch/embed_page.cmake from launch/page.html.
#include \"meshard/launch/page.h\"

namespace meshard {

std::string_view page_template() { return R\"page(${text})page\"; }

}  // namespace meshard
")
