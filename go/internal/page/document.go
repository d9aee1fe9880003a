package page

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"clawker-fw/internal/hostname"
	"clawker-fw/internal/reason"
)

// What a person is asked with. Nothing on the page asks by itself.
const (
	askCommand = "clawker-fw denials --ask"
	howToAsk   = "A person allows it, where the containers are started and not in here: `" + askCommand + "` asks about each host that " +
		"is refused from then on. After the answer, try again."
)

// longestDocument is how many octets the refusals of a page may take: less than Envoy buffers, so that no agent that reads
// slowly keeps a connection to this process.
const longestDocument = 24 << 10

// halves are the siblings, as they are called elsewhere, and what each refuses.
const (
	byResolver = "coredns"
	byProxy    = "envoy"
)

var calledHere = map[string]string{byResolver: "the resolver", byProxy: "the proxy"}

type half struct {
	by string
	told
	err error
}

type shown struct {
	By string `json:"by"`
	refused
	Sentence string `json:"sentence"`
	Command  string `json:"command,omitempty"` // what a person can do about it
}

type document struct {
	Agent      string               `json:"agent"`
	Refusals   []shown              `json:"refusals"` // the latest first
	More       int                  `json:"more"`     // further ones that are not on the page
	Since      map[string]time.Time `json:"since"`    // by sibling: what was before is not known
	Unreadable []string             `json:"unreadable"`
	Ask        string               `json:"ask"`
}

func newDocument(source netip.Addr, halves ...half) document {
	made := document{
		Agent: source.String(), Refusals: []shown{}, Since: map[string]time.Time{}, Unreadable: []string{}, Ask: askCommand,
	}
	var all []shown
	for _, each := range halves {
		if each.err != nil {
			made.Unreadable = append(made.Unreadable, each.by)
			continue
		}
		made.Since[each.by] = each.Since.UTC().Truncate(time.Second)
		made.More += each.More
		for _, known := range each.Refusals {
			all = append(all, show(each.by, known))
		}
	}
	slices.SortStableFunc(all, func(one, other shown) int { return other.Last.Compare(one.Last) })
	octets := 0
	for number, each := range all {
		octets += max(len(each.json()), len(each.text()))
		if number >= mostRefusals || octets > longestDocument {
			made.More += len(all) - number
			break
		}
		made.Refusals = append(made.Refusals, each)
	}
	return made
}

func show(by string, known refused) shown {
	known.First, known.Last = known.First.UTC(), known.Last.UTC()
	made := shown{By: by, Sentence: reason.Sentences[known.Reason]}
	if host, url := urlOf(known); url != "" {
		made.Command = reason.Command(known.Reason, host, url)
	}
	for _, text := range []*string{&known.Protocol, &known.Name, &known.Address, &known.Method, &known.Path, &known.Reason} {
		*text = printable(*text)
	}
	if by == byProxy && known.Reason == reason.NoRule { // Envoy knows of no rules for other ports, so it says no more than this
		protocol := known.Protocol
		if protocol == "tls" {
			protocol = "https"
		}
		made.Sentence += fmt.Sprintf(" over %s on port %d", protocol, known.Port)
	}
	made.refused = known
	return made
}

// urlOf returns the host that was refused, and its URL, or "" if it has none. A question to the resolver does not say what for.
func urlOf(known refused) (host, url string) {
	host = strings.ToLower(strings.TrimSuffix(known.Name, "."))
	scheme, usual := map[string]string{"dns": "https", "tls": "https"}[known.Protocol], 443
	switch known.Protocol {
	case "dns":
		known.Port = usual
	case "http":
		scheme, usual = known.Protocol, 80
		if at := strings.LastIndex(host, ":"); at >= 0 {
			host = host[:at] // its port is not the one that counts
		}
	case "https", "tcp", "udp":
		scheme = known.Protocol
	}
	if scheme == "" || !hostname.Is(host) || known.Port < 1 || known.Port > math.MaxUint16 {
		return "", ""
	}
	url = scheme + "://" + host
	if known.Port != usual || scheme == "tcp" || scheme == "udp" {
		url += ":" + strconv.Itoa(known.Port)
	}
	return host, url
}

func (s shown) json() []byte { return encode(s) }

func (d document) json() []byte { return append(encode(d), '\n') }

func encode(value any) []byte {
	encoded, _ := json.Marshal(value) // no value of ours can't be encoded
	return encoded
}

func (s shown) text() string {
	what := cmp.Or(s.Name, s.Address)
	usual := s.Protocol == "dns" || s.Protocol == "http" && (s.Port == 80 || strings.Contains(s.Name, ":"))
	if !usual {
		what += ":" + strconv.Itoa(s.Port)
	}
	parts := []string{s.Last.Format("15:04:05Z"), s.Protocol, what}
	for _, each := range []string{s.Method, s.Path} {
		if each != "" {
			parts = append(parts, each)
		}
	}
	if s.Count > 1 {
		parts = append(parts, fmt.Sprintf("(%d times)", s.Count))
	}
	lines := strings.Join(parts, " ") + "\n  " + s.Sentence + " (" + s.Reason + ")\n"
	if s.Command != "" {
		lines += "  " + s.Command + "\n"
	}
	return lines
}

// printable returns a text that an agent has chosen without anything that a terminal could obey, or that looks like a line of
// ours. Text of this kind is the same in JSON.
func printable(text string) string {
	if strings.ContainsFunc(text, func(each rune) bool { return each <= ' ' || each >= 0x7f || each == '"' }) {
		return strconv.QuoteToASCII(text)
	}
	return text
}

func (d document) text() string {
	var page strings.Builder
	switch {
	case len(d.Refusals) > 0:
		fmt.Fprintf(&page, "What was refused to this agent (%s), the latest first:\n\n", d.Agent)
	case len(d.Unreadable) == 0:
		fmt.Fprintf(&page, "Nothing was refused to this agent (%s).\n", d.Agent)
	}
	for _, each := range d.Refusals {
		page.WriteString(each.text())
	}
	if d.More > 0 {
		fmt.Fprintf(&page, "and %d more, which are not shown\n", d.More)
	}
	page.WriteByte('\n')
	for _, each := range d.Unreadable {
		fmt.Fprintf(&page, "What %s has refused can't be read just now: try again.\n", calledHere[each])
	}
	for _, each := range []string{byResolver, byProxy} {
		if since, known := d.Since[each]; known {
			fmt.Fprintf(&page, "What %s has refused is known since %s.\n", calledHere[each], since.Format("15:04:05Z"))
		}
	}
	page.WriteString(howToAsk + "\n")
	return page.String()
}
