package usage

import (
	"bytes"
	"net/netip"
	"strconv"
	"strings"

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
	key      []byte // the words of its protocol, its name or its rule's subtree, and its port
	source   netip.Addr
	received uint64 // octets from the agent
	sent     uint64 // octets to the agent
	over     bool   // whether the connection has ended
	led      bool   // whether it led anywhere
}

// read reads a line that begins with Mark. No word but the last has a space: a name is one that a rule has allowed.
func read(line []byte) (observed, bool) {
	const words = 9
	rest := bytes.TrimSuffix(line[len(Mark):], []byte("\n"))
	word := bytes.SplitN(rest, []byte(" "), words)
	if len(word) != words {
		return observed{}, false
	}
	found := observed{key: rest[:len(word[0])+len(word[1])+len(word[2])+2], led: !bytes.Equal(word[7], unplaced)}
	if subtree := subtreeOf(word[8]); subtree != nil {
		found.key = bytes.Join([][]byte{word[0], subtree, word[2]}, []byte(" "))
	}
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

// subtreeOf returns what the rule of a filter chain is for, with the dot before it, if that is a subtree: `tls .NAME …`,
// `http PORT .NAME …` or `https PORT .NAME …` (clawker_fw/stack/envoy/chains.py).
func subtreeOf(chain []byte) []byte {
	const before = 2
	words := bytes.SplitN(chain, []byte(" "), before+2)
	for _, word := range words[:min(len(words), before+1)] {
		if bytes.HasPrefix(word, []byte(".")) {
			return word
		}
	}
	return nil
}

// parse reads a key. A line with another one is of no connection that a rule can have allowed.
func parse(key []byte) (Use, bool) {
	words := bytes.Split(key, []byte(" "))
	if len(words) != 3 || !protocols[string(words[0])] || !hostname.Is(strings.TrimPrefix(string(words[1]), ".")) {
		return Use{}, false
	}
	port, err := strconv.ParseUint(string(words[2]), 10, 16)
	return Use{Protocol: string(words[0]), Name: string(words[1]), Port: uint16(port)}, err == nil && port > 0
}
