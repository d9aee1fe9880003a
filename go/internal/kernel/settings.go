package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

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

// The kernel's table of connections forgets one that an end has half closed after 60 s without a packet, and with it that
// it counts (limits.go), though the program may still have it. While nothing is to be sent, keepalive sends packets. While
// an agent does not read what is to be sent, the kernel asks for room instead, at intervals that grow to TCP_RTO_MAX (120 s).
// So the table has to remember for longer than that. fwctl sets it by netlink, because /proc/sys is read-only in a container;
// the engine can't: some kernels have no such sysctl in a user namespace.

// What has ended is not counted any more (nf_conncount_list), but is in the table for a while: by default for 120 s, so that
// two agents that begin 450 connections a second fill that of a small machine. The program's kernel remembers by itself what it
// has ended, and answers whatever comes late, so the table need not.

// Netlink messages and attributes of timeouts (linux/netfilter/nfnetlink_cttimeout.h).
const (
	timeoutSubsystem  = unix.NFNL_SUBSYS_CTNETLINK_TIMEOUT << 8
	timeoutDefaultSet = timeoutSubsystem | 3
	timeoutDefaultGet = timeoutSubsystem | 4

	timeoutNetwork, timeoutTransport, timeoutData = 2, 3, 4
)

// remembered is for how long the table remembers connections in some states: their numbers are those of timeoutData, of TCP.
var remembered = []struct {
	state  int
	what   string
	within time.Duration
}{
	{1, "connections without an answer are kept for %d s, not %.0f", 15 * time.Second}, // Envoy gives up after 10 s
	// Longer than TCP_RTO_MAX and the eighth of it by which timers of the kernel may be late.
	{5, "half closed connections are counted for %d s without a packet, not %.0f", 150 * time.Second},
	{7, "ended connections are kept for %d s, not %.0f", 2 * time.Second},
	{8, "connections that were reset are kept for %d s, not %.0f", 2 * time.Second},
}

// setTimeouts has the table of this network remember connections for so long. A kernel that can't be told so (without
// CONFIG_NF_CT_NETLINK_TIMEOUT) remembers as long as it does by default.
func setTimeouts() error {
	data := nl.NewRtAttr(timeoutData|unix.NLA_F_NESTED, nil)
	for _, each := range remembered {
		data.AddRtAttr(each.state, nl.BEUint32Attr(uint32(each.within.Seconds())))
	}
	_, err := askTimeouts(timeoutDefaultSet, data)
	return err
}

func timeoutDifferences(sibling boot.Sibling, _ *namespace) ([]string, error) {
	if sibling.Limits == nil {
		return nil, nil
	}
	answer, err := askTimeouts(timeoutDefaultGet)
	if answer == nil || err != nil {
		return nil, err
	}
	timeouts, err := answer.in(timeoutData)
	if err != nil {
		return nil, err
	}
	var differences []string
	for _, each := range remembered {
		value := timeouts.value(each.state)
		if len(value) != 4 {
			return nil, fmt.Errorf("the timeout %d of connections can't be read", each.state)
		}
		if found := binary.BigEndian.Uint32(value); found != uint32(each.within.Seconds()) {
			differences = append(differences, fmt.Sprintf(each.what, found, each.within.Seconds()))
		}
	}
	return differences, nil
}

// askTimeouts asks about the table's timeouts for TCP. A kernel without them answers nothing. Others mark an answer as one of
// several and send no end of them, so the end is an acknowledgement.
func askTimeouts(question int, about ...nl.NetlinkRequestData) (attributes, error) {
	request := nl.NewNetlinkRequest(question, unix.NLM_F_ACK)
	request.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_INET, Version: unix.NFNETLINK_V0})
	request.AddData(nl.NewRtAttr(timeoutNetwork, nl.BEUint16Attr(unix.AF_INET)))
	request.AddData(nl.NewRtAttr(timeoutTransport, nl.Uint8Attr(unix.IPPROTO_TCP)))
	for _, each := range about {
		request.AddData(each)
	}
	messages, err := request.Execute(unix.NETLINK_NETFILTER, 0)
	if errors.Is(err, unix.EINVAL) { // no such subsystem
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("timeouts of connections: %w", err)
	}
	if len(messages) == 0 {
		return nil, nil
	}
	return readMessage(messages[0])
}
