// Package hostname validates and splits host names.
package hostname

import (
	"strings"
	"unicode"
)

// Limits of a name without its final dot (RFC 1035, section 2.3.4).
const (
	longestName  = 253
	longestLabel = 63
)

const letters = "abcdefghijklmnopqrstuvwxyz0123456789-_"

// Is reports whether a name in lower case is a valid host name for rules. Programs disagree about other names.
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

// MayBePublic reports whether a host name in lower case has a dot and a last label that isn't a number.
func MayBePublic(name string) bool {
	dot := strings.LastIndexByte(name, '.')
	top := name[dot+1:]
	return dot > 0 && len(top) > 1 && 'a' <= top[0] && top[0] <= 'z'
}

// Lower returns a host name in lower case, or false if the name isn't a host name. It never folds other alphabets
// into ASCII: Unicode considers the kelvin sign a capital k.
func Lower(name string) (string, bool) {
	if strings.ContainsFunc(name, func(letter rune) bool { return letter > unicode.MaxASCII }) {
		return "", false
	}
	lower := strings.ToLower(name)
	return lower, Is(lower)
}

// Around yields a name and all names above it, longest first.
func Around(name string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for rest, more := name, true; more; _, rest, more = strings.Cut(rest, ".") {
			if !yield(rest) {
				return
			}
		}
	}
}
