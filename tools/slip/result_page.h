#pragma once

#include <span>
#include <string>
#include <vector>

#include "slipstream/tools/slip/findings.h"
#include "slipstream/tools/slip/verdict.h"

namespace slip::cli {

/// What stands on a page besides the figures.
struct PageText {
  std::string title;
  std::string text;     // Markdown
  std::string command;  // that made it
};

/// A file of the page; its name is relative to the page's folder.
struct PageFile {
  std::string name;
  std::string content;
};

/// The page `name`.md first, then its plots, called after it ("hop-loss-ring.svg"). Nothing in them
/// but what the reports say, so that one seed gives one page.
std::vector<PageFile> result_page(const std::string& name, const PageText& text,
                                  const Findings& findings, std::span<const Verdict> verdicts);

}  // namespace slip::cli
