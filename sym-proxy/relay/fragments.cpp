// SPDX-License-Identifier: GPL-2.0-or-later
#include "fragments.hpp"

#include <algorithm>

namespace mobility::proxy {

std::optional<Octets> Fragments::add(View fragment, Time now) {
    const auto piece = parse_fragment(fragment);
    if (!piece) {
        lost_++;
        return {};
    }
    const auto at = find({piece->from, piece->to, piece->id}, now);
    auto& packet = at->second;
    if (piece->offset == 0) {
        packet.header = piece->header;
    }
    if (!insert(packet, piece->offset, piece->data, piece->last)) {
        lost_++;
        packets_.erase(at);
        return {};
    }
    auto out = whole(packet);
    if (out) {
        packets_.erase(at);
    }
    return out;
}

Fragments::Packets::iterator Fragments::find(const Key& key, Time now) {
    if (const auto known = packets_.find(key); known != packets_.end()) {
        return known;
    }
    if (packets_.size() >= kMost) {
        lost_++;
        packets_.erase(std::ranges::min_element(
            packets_, {}, [](const auto& entry) { return entry.second.since; }));
    }
    return packets_.emplace(key, Packet{now, {}, {}, {}}).first;
}

/// False if it does not fit with what is there already.
bool Fragments::insert(Packet& packet, std::size_t offset, View data, bool last) {
    const auto end = offset + data.size();
    auto& pieces = packet.pieces;
    const auto next = pieces.lower_bound(offset);
    if (next != pieces.end() && next->first == offset && next->second.size() == data.size() &&
        std::ranges::equal(next->second, data)) {
        return true;  // once more
    }
    const bool hits_next = next != pieces.end() && next->first < end;
    const bool hits_before =
        next != pieces.begin() && std::prev(next)->first + std::prev(next)->second.size() > offset;
    const auto least = pieces.empty()
                           ? end
                           : std::max(end, pieces.rbegin()->first + pieces.rbegin()->second.size());
    const bool beyond = (packet.size && end > *packet.size) || (last && least > end);
    if (hits_next || hits_before || beyond || (last && packet.size) || pieces.size() >= kPieces) {
        return false;
    }
    pieces.emplace(offset, Octets(data.begin(), data.end()));
    if (last) {
        packet.size = end;
    }
    return true;
}

std::optional<Octets> Fragments::whole(const Packet& packet) {
    std::size_t end = 0;
    for (const auto& [offset, data] : packet.pieces) {
        if (offset != end) {
            return {};
        }
        end += data.size();
    }
    if (packet.size != end) {
        return {};
    }
    Octets out = packet.header;
    for (const auto& [offset, data] : packet.pieces) {
        out.insert(out.end(), data.begin(), data.end());
    }
    return with_length(std::move(out));
}

void Fragments::expire(Time now) {
    lost_ += std::erase_if(packets_,
                           [now](const auto& entry) { return now - entry.second.since > kLife; });
}

}  // namespace mobility::proxy
