// Package policy is the resolver's one source of answers: a list of names, read from a file of ours.
//
// An allowed name has an address, every other name does not exist. The list is complete, so no query is ever
// forwarded. What is live is the digest of the bytes that this process has read, which it computes itself.
package policy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
)

// deny is what an entry says instead of naming an address.
const deny = "deny"

// file is the list as it is written: `at` decides for the name itself, `below` for every name below it. Both name
// an entry of `addresses`, or say `deny`; without either the next name above decides.
type file struct {
	TTL       uint32                `json:"ttl"`
	Addresses map[string]netip.Addr `json:"addresses"`
	Names     map[string]struct {
		At    string `json:"at"`
		Below string `json:"below"`
	} `json:"names"`
}

// answer is a decision: nothing said, an address, or none on purpose.
type answer struct {
	decided bool
	address netip.Addr
}

type entry struct{ at, below answer }

// List is a policy that can be asked. It never changes.
type List struct {
	digest string
	ttl    uint32
	names  map[string]entry
}

// Parse reads a list. The digest is that of all the bytes, in hexadecimal.
func Parse(content []byte) (*List, error) {
	var read file
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&read); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the list")
	}
	if read.Names == nil {
		return nil, errors.New("it has no names: an empty list says so")
	}
	sum := sha256.Sum256(content)
	list := &List{hex.EncodeToString(sum[:]), read.TTL, make(map[string]entry, len(read.Names))}
	for name, said := range read.Names {
		if !isHostName(name) {
			return nil, fmt.Errorf("%q is not a host name in lower case", name)
		}
		at, err := read.answer(said.At)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		below, err := read.answer(said.Below)
		if err != nil {
			return nil, fmt.Errorf("below %s: %w", name, err)
		}
		list.names[name] = entry{at, below}
	}
	return list, nil
}

func (f file) answer(text string) (answer, error) {
	switch text {
	case "":
		return answer{}, nil
	case deny:
		return answer{decided: true}, nil
	}
	address, known := f.Addresses[text]
	if !known || !address.Is4() {
		return answer{}, fmt.Errorf("no IPv4 address is called %q", text)
	}
	return answer{true, address}, nil
}

// Address is that of an allowed name. The name itself decides first, then the nearest name that speaks for what is
// below it, itself included.
func (l *List) Address(name string) (netip.Addr, bool) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if !isHostName(name) {
		return netip.Addr{}, false
	}
	if said := l.names[name].at; said.decided {
		return said.address, said.address.IsValid()
	}
	for above, more := name, true; more; _, above, more = strings.Cut(above, ".") {
		if said := l.names[above].below; said.decided {
			return said.address, said.address.IsValid()
		}
	}
	return netip.Addr{}, false
}

// Bounds of a name (RFC 1035, section 2.3.4), without the dot at its end.
const (
	longestName  = 253
	longestLabel = 63
)

// isHostName says whether a name in lower case is one that a rule can be for. Anything else means different things
// to different programs, and is never looked up.
func isHostName(name string) bool {
	if len(name) > longestName {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > longestLabel || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}
