package hostname

import (
	"strings"
	"testing"
)

// A host name has labels of 1 to 63 letters, digits, hyphens and underscores, in lower case once it is lowered.
func TestLower(t *testing.T) {
	long := strings.Repeat("a", 63)
	for name, wanted := range map[string]string{
		"a.test": "a.test", "A.TeSt": "a.test", "_x-.a1": "_x-.a1", "localhost": "localhost", long + ".test": long + ".test",
		"": "", ".": "", "a..test": "", ".test": "", "test.": "", "*.test": "", "a/b.test": "", "a b": "", "a\x00b": "", "ä.test": "",
		"\u212a.test": "", "secret:ID": "", "[::1]": "", long + "a.test": "", strings.Repeat(long+".", 4): "",
		strings.Repeat("a.", 126) + "b": strings.Repeat("a.", 126) + "b", strings.Repeat("a.", 127) + "b": "",
	} {
		if found, is := Lower(name); is != (wanted != "") || is && found != wanted {
			t.Errorf("%q: got %q, %t", name, found, is)
		}
	}
}

// A person is only asked about hosts of the internet. The same names are in tests/unit/test_questions.py.
func TestMayBeAskedAbout(t *testing.T) {
	for _, name := range []string{"a.test", "x_y.test", "-a.test", "deep.s3.example.com", "someone.github.io", "a.0xg"} {
		if !MayBeAskedAbout(name) {
			t.Errorf("%q is not asked about", name)
		}
	}
	for _, name := range []string{
		"", "169.254.169.254", "10.0.0.1", "1.2.3", "2130706433", "127.0.0.0x1", "a.0x", "metadata.google.internal", "metadata", "instance-data", "localhost",
		"a.localhost", "printer.local", "x.onion", "1.0.0.127.in-addr.arpa", "a.alt", "refused.clawker-fw.invalid", "clawker.internal",
		"co.uk", "com", "github.io", "foo.ck", "xn--p1ai", "xn--a.test", "xn--e1afmkfd.xn--p1ai", "a..test", "a b.test", "A.test", "secret:ID", "[::1]",
	} {
		if MayBeAskedAbout(name) {
			t.Errorf("%q is asked about", name)
		}
	}
}
