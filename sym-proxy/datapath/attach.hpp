// SPDX-License-Identifier: GPL-2.0-or-later
// Programs on interfaces: put there, replaced without a gap, taken away.
#pragma once

#include <string>
#include <vector>

#include "data_path.hpp"
#include "link.hpp"
#include "object.hpp"

namespace mobility::proxy {

class Attacher {
  public:
    /// `pins`: where links of XDP are pinned.
    Attacher(const Object& object, std::string pins) : object_(&object), pins_(std::move(pins)) {}

    /// tc always; XDP beside it if asked for, or if it costs nothing.
    Result<Attached> attach(const Link& link, Attach how);
    /// Those that were attached to once and are none of `links` are let go.
    void keep(const std::vector<Link>& links);
    /// By what XDP sends, to all of these.
    Result<void> set_ways(const std::vector<Link>& links);

  private:
    Result<void> attach_tc(const Link& link);
    Result<void> attach_xdp(const Link& link);
    void detach(std::uint32_t index);
    [[nodiscard]] std::string pin_of(std::uint32_t index) const;
    [[nodiscard]] bool has_xdp(std::uint32_t index) const;
    Result<void> remember(const Link& link, bool xdp);

    const Object* object_;
    std::string pins_;
};

}  // namespace mobility::proxy
