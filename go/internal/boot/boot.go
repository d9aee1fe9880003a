// Package boot reads what clawker-fw says of a sibling when it makes its container: boot/sibling.json.
package boot

import (
	"fmt"
	"net/netip"
	"path/filepath"

	"clawker-fw/internal/volume"
)

// Sibling is boot/sibling.json: which sibling this container is, and the network it needs.
type Sibling struct {
	Name       string             `json:"sibling"`
	Interfaces []Interface        `json:"interfaces"`
	Addresses  []Address          `json:"addresses"`
	Blocks     []netip.Prefix     `json:"blocks"` // further addresses of ours on the interface in whose subnet they are
	Tables     []Table            `json:"tables"`
	Service    *Address           `json:"service"`
	Resolver   *netip.Addr        `json:"resolver"`    // the engine's embedded resolver, the target of its NAT rules
	ResolvConf []string           `json:"resolv_conf"` // expected lines of the engine's /etc/resolv.conf
	Sysctls    map[string]string  `json:"sysctls"`     // of the whole namespace; set by the engine
	Resources  []Resource         `json:"resources"`   // the hot files, in the order in which a commit places them
	Settings   map[string]int     `json:"settings"`    // of each interface (net.ipv4.conf.*); set by serve
	Limits     *Limits            `json:"limits"`      // of agents; set by serve
	Apart      *Apart             `json:"-"`           // of a relay, which has no such file
	Forwarder  *ForwarderSettings `json:"forwarder"`   // of lookups; started by serve
	Signer     *SignerSettings    `json:"signer"`      // of certificates; started by serve
	Page       *PageSettings      `json:"page"`        // about refusals; served by the recorder
	Usage      *UsageSettings     `json:"usage"`       // of what agents use; kept by the recorder
}

// Around returns the subnet of the interface on which a block of addresses is, or the block itself if there is none.
func (s Sibling) Around(block netip.Prefix) netip.Prefix {
	for _, iface := range s.Interfaces {
		if iface.Subnet.Contains(block.Addr()) {
			return iface.Subnet
		}
	}
	return block
}

// Limits is what one agent, a source address in Subnet, can take of this sibling. Addresses in Except
// are not limited, and only they may connect to addresses in Private, and to PrivatePort over TCP if there is one: for others these are closed. QueriesPerSecond is 0 if the sibling answers no queries, DatagramsPerSecond if it forwards none.
type Limits struct {
	Subnet               netip.Prefix `json:"subnet"`
	Except               []netip.Addr `json:"except"`
	Private              []netip.Addr `json:"private"`
	PrivatePort          uint16       `json:"private_port"`
	Connections          int          `json:"connections"`     // at once
	AllConnections       int          `json:"all_connections"` // at once, of all agents together
	ConnectionsPerSecond int          `json:"connections_per_second"`
	QueriesPerSecond     int          `json:"queries_per_second"`
	DatagramsPerSecond   int          `json:"datagrams_per_second"`
}

// Apart is what a relay has to do with: its agent, and the engine's machine on the network for published ports.
type Apart struct{ Agent, Engine Pair }

// Pair is a network, and the only address in it that packets come from and go to.
type Pair struct {
	Subnet netip.Prefix
	Only   netip.Addr
}

// Interface is a network interface provided by the engine: its address, its subnet, and its gateway if it has one.
type Interface struct {
	Address netip.Addr   `json:"address"`
	Subnet  netip.Prefix `json:"subnet"`
	Gateway *netip.Addr  `json:"gateway"`
}

// Address is an additional address that the engine does not assign, for the interface in Subnet.
type Address struct {
	Address netip.Addr   `json:"address"`
	Subnet  netip.Prefix `json:"subnet"`
}

// Table is the routing table for packets with the source address From. It has a default route via Gateway,
// unreachable routes for the Unreachable ranges, and a route to Subnet itself only if Connected.
type Table struct {
	Name        string         `json:"name"` // guarded or exempt
	From        netip.Addr     `json:"from"`
	ID          int            `json:"table"`
	Gateway     netip.Addr     `json:"gateway"`
	Subnet      netip.Prefix   `json:"subnet"`
	Connected   bool           `json:"connected"`
	Unreachable []netip.Prefix `json:"unreachable"`
}

func Read(root string) (Sibling, error) {
	var sibling Sibling
	path := filepath.Join(root, "boot", "sibling.json")
	if err := volume.ReadJSON(path, &sibling); err != nil {
		return sibling, err
	}
	if sibling.Name != "envoy" && sibling.Name != "coredns" {
		return sibling, fmt.Errorf("%s: unknown sibling %q", path, sibling.Name)
	}
	return sibling, nil
}

// Resource is a hot file, and the way to prove that the program has loaded it, as declared in boot/sibling.json.
//
// If Hashed, the program reports the SHA-256 of the bytes that it has read; if Signer, the signer does. If Envoy is set, the
// digest is taken over the configuration that Envoy has loaded, in canonical form. A resource with none of these is read only
// by fwctl itself and needs no proof.
type Resource struct {
	Name   string      `json:"name"`
	Path   string      `json:"path"` // below hot/
	Hashed bool        `json:"hashed,omitempty"`
	Signer bool        `json:"signer,omitempty"`
	Envoy  *EnvoyProof `json:"envoy,omitempty"`
	// Watched is the folder in which a rename has the program read the file again, if it waits for one.
	Watched string `json:"watched,omitempty"`
}

// EnvoyProof locates a resource in Envoy's admin interface: in `/config_dump?resource=Dump`, at the path At of each
// entry, of those that are called Named if it is set; and in the statistics below the name Statistics, which have the
// version of the last accepted file. A layer of the runtime is in no dump: the text of its only key, Runtime, counts.
type EnvoyProof struct {
	Dump       string   `json:"dump"`
	At         []string `json:"at"`
	Statistics string   `json:"statistics"`
	Runtime    string   `json:"runtime,omitempty"`
	Named      string   `json:"named,omitempty"`
}

// ForwarderSettings is where the forwarder listens, whom it asks, and which networks it is on.
type ForwarderSettings struct {
	Listen   netip.AddrPort `json:"listen"`
	Upstream netip.AddrPort `json:"upstream"`
	Agents   netip.Prefix   `json:"agents"`
	Egress   netip.Prefix   `json:"egress"`
}

// UsageSettings says which addresses on the agent network are ours: what comes from there is no agent's use.
type UsageSettings struct {
	Except []netip.Addr `json:"except"`
}

// SignerSettings is the folder in which the signer has its sockets, which is made at start, and the file of the image with
// the authorities by which hosts prove their names to Envoy. Further ones in the volume, if there are any, are joined with
// these at start.
type SignerSettings struct {
	Folder  string `json:"folder"`
	Trusted string `json:"trusted"`
	Further string `json:"further,omitempty"` // below the volume
	Joined  string `json:"joined,omitempty"`

	// Secrets are the ids of those that the table names with which Envoy starts. It asks for no other one later.
	Secrets []string `json:"secrets,omitempty"`
}

// PageSettings is how the page about refusals is served: at Socket, which is made at start, by who asks Other from its address
// Own. In the other sibling's container Socket is "", and Askers are answered at Listen.
type PageSettings struct {
	Socket string         `json:"socket,omitempty"`
	Own    netip.Addr     `json:"own,omitzero"`
	Other  netip.AddrPort `json:"other,omitzero"`
	Listen netip.AddrPort `json:"listen,omitzero"`
	Askers []netip.Addr   `json:"askers,omitempty"`
}
