// Package policy is the CoreDNS plugin that answers all queries from one list of names, read from a file.
//
// An allowed name has an address, and every other name does not exist. The list is complete, so no query is ever
// forwarded.
package policy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"clawker-fw/internal/hostname"
	"clawker-fw/internal/hotfile"
	"clawker-fw/internal/reason"
)

const deny = "deny"

// file is the format of the list. `at` decides for the name itself, `below` for every name below it. Each is a key of
// `addresses` or `deny`; if it is missing, the nearest name above decides. An address with a time, in seconds since
// 1970, is refused from then on. With a number, it is so many addresses after the one that is named.
type file struct {
	TTL       uint32                `json:"ttl"`
	Addresses map[string]netip.Addr `json:"addresses"`
	Names     map[string]struct {
		At         string `json:"at"`
		AtUntil    int64  `json:"at_until"`
		AtNumber   uint32 `json:"at_number"`
		Below      string `json:"below"`
		BelowUntil int64  `json:"below_until"`
	} `json:"names"`
}

type answer struct {
	decided bool
	address netip.Addr
	until   int64
}

// Decision is what happens to a name: it has an address, or is refused for a reason.
type Decision struct {
	Address netip.Addr
	Reason  string
}

// Allowed reports whether the name has an address.
func (d Decision) Allowed() bool { return d.Reason == "" }

type entry struct{ at, below answer }

// List is a parsed, immutable policy.
type List struct {
	ttl   uint32
	names map[string]entry
}

// Parse parses a list.
func Parse(content []byte) (*List, error) {
	var read file
	if err := hotfile.Unmarshal(content, &read); err != nil {
		return nil, err
	}
	if read.Names == nil {
		return nil, errors.New("names is missing; write {} for an empty list")
	}
	list := &List{read.TTL, make(map[string]entry, len(read.Names))}
	for name, said := range read.Names {
		if !hostname.Is(name) {
			return nil, fmt.Errorf("%q is not a host name in lower case", name)
		}
		at, err := read.answer(said.At, said.AtUntil, said.AtNumber)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		below, err := read.answer(said.Below, said.BelowUntil, 0)
		if err != nil {
			return nil, fmt.Errorf("below %s: %w", name, err)
		}
		list.names[name] = entry{at, below}
	}
	return list, nil
}

func (f file) answer(text string, until int64, number uint32) (answer, error) {
	address, known := f.Addresses[text]
	switch {
	case until < 0 || (until > 0 && !known):
		return answer{}, fmt.Errorf("%d is not the end of an address", until)
	case number > 0 && !known:
		return answer{}, fmt.Errorf("%d is not the number of an address", number)
	case text == "":
		return answer{}, nil
	case text == deny:
		return answer{decided: true}, nil
	case !known || !address.Is4():
		return answer{}, fmt.Errorf("addresses has no IPv4 address %q", text)
	}
	first := address.As4()
	binary.BigEndian.PutUint32(first[:], binary.BigEndian.Uint32(first[:])+number)
	return answer{true, netip.AddrFrom4(first), until}, nil
}

// Decide returns what happens to a name at a time. The name's own `at` decides first, then the nearest `below`, starting
// with the name itself.
func (l *List) Decide(name string, now time.Time) Decision {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if !hostname.Is(name) {
		return Decision{Reason: reason.BadName}
	}
	if said := l.names[name].at; said.decided {
		return said.decision(now)
	}
	for above := range hostname.Around(name) {
		if said := l.names[above].below; said.decided {
			return said.decision(now)
		}
	}
	return Decision{Reason: reason.NoRule}
}

func (a answer) decision(now time.Time) Decision {
	switch {
	case !a.address.IsValid():
		return Decision{Reason: reason.Denied}
	case a.until > 0 && now.Unix() >= a.until:
		return Decision{Reason: reason.Expired}
	}
	return Decision{Address: a.address}
}
