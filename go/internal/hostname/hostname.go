// Package hostname says which names are host names.
package hostname

import (
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// Limits of a name without its final dot (RFC 1035, section 2.3.4).
const (
	longestName  = 253
	longestLabel = 63
)

const letters = "abcdefghijklmnopqrstuvwxyz0123456789-_"

// Is reports whether a name in lower case is a host name that a rule can have. Programs interpret other names
// differently.
func Is(name string) bool {
	if len(name) > longestName {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > longestLabel || strings.Trim(label, letters) != "" {
			return false
		}
	}
	return true
}

// Lower returns a host name in lower case, or false if it is none. Letters of other alphabets are never taken for ASCII:
// to Unicode, the sign for kelvin is a large k.
func Lower(name string) (string, bool) {
	octets := []byte(name)
	for at, each := range octets {
		if 'A' <= each && each <= 'Z' {
			octets[at] = each + 'a' - 'A'
		}
	}
	lower := string(octets)
	return lower, Is(lower)
}

// Around yields a name and all names above it, the longest first.
func Around(name string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for rest, more := name, true; more; _, rest, more = strings.Cut(rest, ".") {
			if !yield(rest) {
				return
			}
		}
	}
}

// privateDomains are top-level domains of which no name leads to the internet (clawker_fw/denials/question.py).
var privateDomains = []string{"alt", "arpa", "internal", "invalid", "local", "localhost", "onion"}

// MayBeAskedAbout reports whether a person may be asked to allow a name in lower case: it is a host's, of the internet, in ASCII, and not a
// suffix below which anybody can register names. It is the same list as that of `denials --ask`.
func MayBeAskedAbout(name string) bool {
	labels := strings.Split(name, ".")
	last := labels[len(labels)-1]
	if !Is(name) || len(labels) == 1 || slices.Contains(privateDomains, last) || isNumber(last) {
		return false
	}
	for _, label := range labels {
		if strings.HasPrefix(label, "xn--") {
			return false
		}
	}
	suffix, _ := publicsuffix.PublicSuffix(name)
	return suffix != name
}

// isNumber reports whether a last label makes an address of a name, as programs read it (WHATWG URL, "ends in a number").
func isNumber(label string) bool {
	if digits, hexadecimal := strings.CutPrefix(label, "0x"); hexadecimal {
		return strings.Trim(digits, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}
