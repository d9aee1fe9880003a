package kernel

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"clawker-fw/internal/boot"
)

// SystemSettings is the folder with the sysctls of this network namespace (sysctl(8)).
const SystemSettings = "/proc/sys"

// inetConf is the netlink attribute with the IPv4 settings of an interface (linux/if_link.h).
const inetConf = 1

// settingNumbers maps the names in net.ipv4.conf to the kernel's numbers (IPV4_DEVCONF_*, linux/ip.h).
var settingNumbers = map[string]int{
	"forwarding": 1, "proxy_arp": 3, "rp_filter": 8, "accept_source_route": 9, "arp_filter": 13, "arp_announce": 18,
	"arp_ignore": 19, "arp_accept": 21, "accept_local": 23, "proxy_arp_pvlan": 25, "route_localnet": 26,
	"drop_gratuitous_arp": 31,
}

// setInterfaces applies the settings to each interface that is up. It uses netlink, because /proc/sys is read-only
// in a container. The engine can't set them: it adds interfaces after the container's sysctls have been applied, and
// new interfaces have the host's defaults.
func setInterfaces(settings map[string]int) error {
	if len(settings) == 0 {
		return nil
	}
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("reading the interfaces: %w", err)
	}
	for _, link := range links {
		if link.Attrs().Flags&unix.IFF_UP == 0 {
			continue // e.g. a tunnel that the kernel creates in every namespace; it passes no packets
		}
		family := nl.NewRtAttr(unix.AF_INET, nil)
		values := family.AddRtAttr(inetConf, nil)
		for _, name := range slices.Sorted(maps.Keys(settings)) {
			number, known := settingNumbers[name]
			if !known {
				return fmt.Errorf("unknown interface setting %q", name)
			}
			values.AddRtAttr(number, nl.Uint32Attr(uint32(settings[name])))
		}
		specification := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
		specification.AddChild(family)
		message := nl.NewIfInfomsg(unix.AF_UNSPEC)
		message.Index = int32(link.Attrs().Index)
		request := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
		request.AddData(message)
		request.AddData(specification)
		if _, err := request.Execute(unix.NETLINK_ROUTE, 0); err != nil {
			return fmt.Errorf("settings of %s: %w", link.Attrs().Name, err)
		}
	}
	return nil
}

// settingDifferences compares the sysctls of the namespace and of each interface that is up.
func settingDifferences(sibling boot.Sibling, seen *namespace) ([]string, error) {
	wanted := maps.Clone(sibling.Sysctls)
	if wanted == nil {
		wanted = map[string]string{}
	}
	for _, link := range seen.links {
		if link.Attrs().Flags&unix.IFF_UP == 0 {
			continue
		}
		for name, value := range sibling.Settings {
			// In a sysctl's name, a dot in an interface's name is written as a slash.
			place := strings.ReplaceAll(link.Attrs().Name, ".", "/")
			wanted["net.ipv4.conf."+place+"."+name] = strconv.Itoa(value)
		}
	}
	var differences []string
	var failures []error
	for name, value := range wanted {
		found, err := readSetting(name)
		if err != nil {
			failures = append(failures, err)
		} else if found != value {
			differences = append(differences, fmt.Sprintf("%s is %s, not %s", name, found, value))
		}
	}
	return differences, errors.Join(failures...)
}

func readSetting(name string) (string, error) {
	swap := strings.NewReplacer(".", "/", "/", ".")
	text, err := os.ReadFile(filepath.Join(SystemSettings, swap.Replace(name)))
	return strings.Join(strings.Fields(string(text)), " "), err // the kernel puts tabs between several values
}
