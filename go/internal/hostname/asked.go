package hostname

import (
	"slices"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
)

// privateDomains are top-level domains of which no name leads to the internet (clawker_fw/denials/question.py).
var privateDomains = []string{"alt", "arpa", "internal", "invalid", "local", "localhost", "onion"}

// MayBeAskedAbout reports whether a person may be asked to allow a name in lower case: it is a host's, of the internet, and not a
// suffix below which anybody can register names. It is the same list as that of `denials --ask`.
func MayBeAskedAbout(name string) bool {
	labels := strings.Split(name, ".")
	last := labels[len(labels)-1]
	if !Is(name) || len(labels) == 1 || slices.Contains(privateDomains, last) || isNumber(last) {
		return false
	}
	for _, label := range labels {
		if strings.HasPrefix(label, "xn--") {
			if _, err := idna.Registration.ToUnicode(label); err != nil {
				return false
			}
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
