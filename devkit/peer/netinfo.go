// The verb netinfo: what a container sees of its network, and what it may do to it.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
)

type netinfo struct {
	Addresses    []string `json:"addresses"` // address/prefix length, without loopback and IPv6 link-local
	Default      bool     `json:"default_route"`
	ResolvConf   string   `json:"resolv_conf"`
	Capabilities uint64   `json:"capabilities"` // effective ones, a bit for each, as in linux/capability.h
}

func declareNetinfo(*flag.FlagSet) action {
	return func(_ context.Context, _ []string, out *printer) (bool, error) {
		found := netinfo{}
		var err error
		if found.Addresses, err = addresses(); err != nil {
			return false, err
		}
		table, err := os.ReadFile("/proc/net/route")
		if err != nil {
			return false, err
		}
		found.Default = hasDefault(string(table))
		resolvConf, err := os.ReadFile(resolvConf)
		if err != nil && !os.IsNotExist(err) {
			return false, err
		}
		found.ResolvConf = string(resolvConf)
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			return false, err
		}
		_, rest, _ := bytes.Cut(status, []byte("\nCapEff:"))
		if _, err := fmt.Sscanf(string(rest), "%x", &found.Capabilities); err != nil {
			return false, err
		}
		out.print(found)
		return true, nil
	}
}

func addresses() ([]string, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	kept := []string{}
	for _, one := range all {
		prefix, err := netip.ParsePrefix(one.String())
		if err != nil {
			return nil, err
		}
		address := prefix.Addr()
		if address.IsLoopback() || address.Is6() && address.IsLinkLocalUnicast() {
			continue
		}
		kept = append(kept, prefix.String())
	}
	return kept, nil
}

// rejecting is RTF_REJECT of linux/route.h: a route that refuses, such as "unreachable default".
const rejecting = 0x200

// hasDefault finds a default route in the text of /proc/net/route, a line per route of interface, destination, gateway,
// flags, three numbers, mask, of which the addresses and the flags are hexadecimal.
func hasDefault(table string) bool {
	for line := range strings.Lines(table) {
		var link, gateway string
		var destination, flags, mask uint32
		var numbers [3]int
		_, err := fmt.Sscanf(line, "%s %x %s %x %d %d %d %x",
			&link, &destination, &gateway, &flags, &numbers[0], &numbers[1], &numbers[2], &mask)
		if err == nil && destination == 0 && mask == 0 && flags&rejecting == 0 {
			return true
		}
	}
	return false
}
