package usage

import (
	"bytes"
	"net/netip"
	"strconv"

	"clawker-fw/internal/hostname"
)

// Mark begins each line of Envoy's about a connection that it has made to a host (clawker_fw/stack/envoy/usage.py). No other
// line begins so: all others are JSON.
var Mark = []byte("used ")

var (
	periodic  = []byte("Periodic") // the end of what Envoy calls a line about a connection that is open
	unplaced  = []byte("-")        // in place of an address: Envoy has connected to nobody
	protocols = map[string]bool{"https": true, "http": true, "tcp": true, "udp": true}
)

// observed is what a line says: `used PROTOCOL NAME PORT SOURCE RECEIVED SENT MOMENT FROM CHAIN`.
type observed struct {
	key      []byte // the words of its protocol, its name and its port
	source   netip.Addr
	received uint64 // octets from the agent
	sent     uint64 // octets to the agent
	over     bool   // whether the connection has ended
	led      bool   // whether it led anywhere
	chain    []byte // of the rule that has allowed it
}

// read reads a line that begins with Mark. No word but the last has a space: a name is one that a rule has allowed.
func read(line []byte) (observed, bool) {
	const words = 9
	rest := bytes.TrimSuffix(line[len(Mark):], []byte("\n"))
	word := bytes.SplitN(rest, []byte(" "), words)
	if len(word) != words {
		return observed{}, false
	}
	found := observed{key: rest[:len(word[0])+len(word[1])+len(word[2])+2], led: !bytes.Equal(word[7], unplaced), chain: word[8]}
	source, err := netip.ParseAddrPort(string(word[3]))
	if err != nil {
		return observed{}, false
	}
	found.source = source.Addr().Unmap()
	var failed [2]error
	found.received, failed[0] = strconv.ParseUint(string(word[4]), 10, 63)
	found.sent, failed[1] = strconv.ParseUint(string(word[5]), 10, 63)
	found.over = !bytes.HasSuffix(word[6], periodic)
	return found, failed[0] == nil && failed[1] == nil
}

// place is what connections are told apart by: what an agent has asked for.
type place struct {
	protocol string
	name     string
	port     uint16
}

// parse reads a key. A line with another one is of no connection that a rule can have allowed.
func parse(key []byte) (place, bool) {
	words := bytes.Split(key, []byte(" "))
	if len(words) != 3 || !protocols[string(words[0])] || !hostname.Is(string(words[1])) {
		return place{}, false
	}
	port, err := strconv.ParseUint(string(words[2]), 10, 16)
	return place{string(words[0]), string(words[1]), uint16(port)}, err == nil && port > 0
}

func (p place) key() string { return p.protocol + " " + p.name + " " + strconv.Itoa(int(p.port)) }
