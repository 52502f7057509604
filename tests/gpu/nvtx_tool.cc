// A tool as NVTX injects it (NVTX_INJECTION64_PATH): counts the ranges of Slipstream's by name.
#include <nvtx3/nvToolsExt.h>

#include <map>
#include <mutex>
#include <string>

namespace {

std::mutex mutex;
std::map<nvtxRangeId_t, std::string> open_ranges;
std::map<std::string, int> ended;
std::string domain_name;

template <class Function>
void set(NvtxFunctionTable table, int at, Function* function) {
  *table[at] = reinterpret_cast<NvtxFunctionPointer>(function);
}

nvtxDomainHandle_t create(const char* name) {
  domain_name = name;
  return reinterpret_cast<nvtxDomainHandle_t>(&domain_name);
}

nvtxStringHandle_t register_string(nvtxDomainHandle_t, const char* text) {
  return reinterpret_cast<nvtxStringHandle_t>(new std::string(text));  // as long as the process
}

nvtxRangeId_t start(nvtxDomainHandle_t, const nvtxEventAttributes_t* attributes) {
  const std::lock_guard lock(mutex);
  static nvtxRangeId_t last = 0;
  open_ranges[++last] = *reinterpret_cast<const std::string*>(attributes->message.registered);
  return last;
}

void end(nvtxDomainHandle_t, nvtxRangeId_t id) {
  const std::lock_guard lock(mutex);
  ++ended[open_ranges.at(id)];
  open_ranges.erase(id);
}

}  // namespace

/// Ranges of that name that have ended; -1: the domain is another's.
extern "C" int ended_ranges(const char* name) {
  const std::lock_guard lock(mutex);
  return domain_name == "slipstream" ? ended[name] : -1;
}

extern "C" int open_range_count() {
  const std::lock_guard lock(mutex);
  return static_cast<int>(open_ranges.size());
}

extern "C" int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get) {
  const auto* callbacks = static_cast<const NvtxExportTableCallbacks*>(get(NVTX_ETID_CALLBACKS));
  NvtxFunctionTable table = nullptr;
  unsigned size = 0;
  if (callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &table, &size) == 0) return 0;
  set(table, NVTX_CBID_CORE2_DomainCreateA, create);
  set(table, NVTX_CBID_CORE2_DomainRegisterStringA, register_string);
  set(table, NVTX_CBID_CORE2_DomainRangeStartEx, start);
  set(table, NVTX_CBID_CORE2_DomainRangeEnd, end);
  return 1;
}
