// SPDX-License-Identifier: GPL-2.0-or-later
#include "link.hpp"

// Before the kernel's own, which then leave out what is in it.
#include <net/if.h>

#include <linux/ethtool.h>
#include <linux/if_arp.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <set>

#include "object.hpp"
#include "unique_fd.hpp"

namespace mobility::proxy {

namespace {

/// ioctl()s about one interface.
class Asker {
  public:
    explicit Asker(const std::string& name)
        : fd_(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)), name_(name) {}

    bool ask(unsigned long what, ifreq& request) const {
        std::memset(request.ifr_name, 0, sizeof(request.ifr_name));
        name_.copy(request.ifr_name, sizeof(request.ifr_name) - 1);
        return ioctl(fd_.get(), what, &request) == 0;
    }
    template <typename T>
    bool ethtool(T& command) const {
        ifreq request{};
        request.ifr_data = reinterpret_cast<char*>(&command);
        return ask(SIOCETHTOOL, request);
    }

  private:
    ctl::UniqueFd fd_;
    std::string name_;
};

/// True if GRO of the hardware, or LRO, is on: XDP sees single segments only, so that drivers turn
/// these off for it.
bool joins_segments(const Asker& asker) {
    ethtool_value flags{ETHTOOL_GFLAGS, 0};
    return asker.ethtool(flags) && (flags.data & ETH_FLAG_LRO) != 0;
}

int read_vlan(nl_msg* message, void* argument) {
    auto& link = *static_cast<Link*>(argument);
    std::array<nlattr*, IFLA_MAX + 1> about{};
    std::array<nlattr*, IFLA_INFO_MAX + 1> info{};
    std::array<nlattr*, IFLA_VLAN_MAX + 1> vlan{};
    if (nlmsg_parse(nlmsg_hdr(message), sizeof(ifinfomsg), about.data(), IFLA_MAX, nullptr) < 0 ||
        about[IFLA_LINK] == nullptr || about[IFLA_LINKINFO] == nullptr ||
        nla_parse_nested(info.data(), IFLA_INFO_MAX, about[IFLA_LINKINFO], nullptr) < 0 ||
        info[IFLA_INFO_KIND] == nullptr || nla_strcmp(info[IFLA_INFO_KIND], "vlan") != 0 ||
        info[IFLA_INFO_DATA] == nullptr ||
        nla_parse_nested(vlan.data(), IFLA_VLAN_MAX, info[IFLA_INFO_DATA], nullptr) < 0 ||
        vlan[IFLA_VLAN_ID] == nullptr || vlan[IFLA_VLAN_PROTOCOL] == nullptr) {
        return NL_OK;
    }
    link.below = nla_get_u32(about[IFLA_LINK]);
    link.tag = nla_get_u16(vlan[IFLA_VLAN_ID]);
    link.tag_protocol = ntohs(nla_get_u16(vlan[IFLA_VLAN_PROTOCOL]));
    return NL_OK;
}

/// Fills in what VLAN the interface is, if it is one.
void ask_vlan(Link& link) {
    const std::unique_ptr<nl_sock, void (*)(nl_sock*)> socket(nl_socket_alloc(), nl_socket_free);
    ifinfomsg about{};
    about.ifi_index = static_cast<int>(link.index);
    if (!socket || nl_connect(socket.get(), NETLINK_ROUTE) < 0 ||
        nl_socket_modify_cb(socket.get(), NL_CB_VALID, NL_CB_CUSTOM, read_vlan, &link) < 0 ||
        nl_send_simple(socket.get(), RTM_GETLINK, 0, &about, sizeof(about)) < 0) {
        return;
    }
    nl_recvmsgs_default(socket.get());
}

bool is_raw(int type) {
    return type != ARPHRD_ETHER && type != ARPHRD_LOOPBACK;
}

}  // namespace

tcpmigrate::Result<Link> Link::look_at(const std::string& name) {
    const Asker asker(name);
    Link link;
    link.name = name;
    ifreq request{};
    if (!asker.ask(SIOCGIFINDEX, request)) {
        return failure(errno, "interface " + name);
    }
    link.index = static_cast<std::uint32_t>(request.ifr_ifindex);
    if (!asker.ask(SIOCGIFHWADDR, request)) {
        return failure(errno, "the kind of interface " + name);
    }
    link.raw = is_raw(request.ifr_hwaddr.sa_family);
    std::memcpy(link.mac.data(), request.ifr_hwaddr.sa_data, link.mac.size());
    ethtool_drvinfo about{};
    about.cmd = ETHTOOL_GDRVINFO;
    if (asker.ethtool(about)) {
        link.driver = about.driver;
    }
    std::error_code ignored;
    link.hardware = std::filesystem::exists("/sys/class/net/" + name + "/device", ignored);
    link.merges = joins_segments(asker);
    ask_vlan(link);
    return link;
}

std::string Link::against_xdp() const {
    // They hand over what another kernel has sent, in large pieces and without checksums; with XDP
    // they would not.
    static const std::set<std::string> virtual_drivers = {"virtio_net", "vif", "hv_netvsc",
                                                          "vmxnet3", "xen_netfront"};
    const std::string kind = driver.empty() ? name : driver;
    if (raw) {
        return kind + ": XDP needs a link layer";
    }
    if (!hardware) {
        return kind + ": XDP would cost it its offloads, or is not native there";
    }
    if (virtual_drivers.contains(driver)) {
        return kind + ": XDP would cost it its offloads";
    }
    if (merges) {
        return kind + ": XDP would cost it LRO";
    }
    return {};
}

}  // namespace mobility::proxy
