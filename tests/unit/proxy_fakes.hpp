// SPDX-License-Identifier: GPL-2.0-or-later
// What the proxy's relays keep in the kernel, kept here instead.
#pragma once

#include <cerrno>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "datapath/data_path.hpp"
#include "relay/journal.hpp"

namespace mobility::proxy {

class FakeDataPath : public DataPath {
  public:
    Result<void> set(const Tuple& in, const Tuple& out, std::uint32_t relay,
                     bool is_late) override {
        if (full) {
            return tcpmigrate::make_error(ENOSPC, "full");
        }
        late.erase(in);
        if (is_late) {
            late.insert(in);
        }
        all[in] = FlowSeen{relay, out, 0, 0, 0, {}, {}, false};
        return {};
    }
    Result<void> remove(const Tuple& in) override {
        return all.erase(in) == 1 ? Result<void>() : tcpmigrate::make_error(ENOENT, "none");
    }
    [[nodiscard]] std::optional<FlowSeen> get(const Tuple& in) const override {
        const auto found = all.find(in);
        return found == all.end() ? std::nullopt : std::optional(found->second);
    }
    [[nodiscard]] std::map<Tuple, FlowSeen> flows() const override { return all; }
    [[nodiscard]] int fd() const override { return -1; }
    void poll() override {}
    [[nodiscard]] std::vector<std::uint64_t> counters() const override { return {}; }
    [[nodiscard]] std::vector<Attached> attached() const override { return {}; }
    void unpin() override {}

    std::map<Tuple, FlowSeen> all;
    std::set<Tuple> late;
    bool full = false;
};

class FakeJournal : public Journal {
  public:
    Result<void> put(const Record& record) override {
        if (full) {
            return tcpmigrate::make_error(ENOSPC, "full");
        }
        kept[record.proxy] = record;
        return {};
    }
    void remove(const Endpoint& proxy) override { kept.erase(proxy); }
    [[nodiscard]] std::optional<Record> get(const Endpoint& proxy) const override {
        const auto found = kept.find(proxy);
        return found == kept.end() ? std::nullopt : std::optional(found->second);
    }
    [[nodiscard]] std::vector<Record> all() const override {
        std::vector<Record> out;
        for (const auto& [proxy, record] : kept) {
            out.push_back(record);
        }
        return out;
    }
    std::map<Endpoint, Record> kept;
    bool full = false;
};

}  // namespace mobility::proxy
