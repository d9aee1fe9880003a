package signing

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"clawker-fw/internal/must"
)

var testTime = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

const testLife = 30 * 24 * time.Hour

// testRoot is a root CA, and issues intermediates.
type testRoot struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	return must.Get[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
}

func newTestRoot(t testing.TB) testRoot {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: testTime.Add(-time.Hour), NotAfter: testTime.AddDate(10, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	der := must.Get[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	return testRoot{must.Get[*x509.Certificate](t)(x509.ParseCertificate(der)), key}
}

// pair is an intermediate in the file's form.
type pair struct {
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
}

// intermediate returns an intermediate for names, changed by functions before it is signed.
func (r testRoot) intermediate(t testing.TB, names []string, change ...func(*x509.Certificate)) pair {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "intermediate"}, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		NotBefore: testTime.Add(-time.Hour), NotAfter: testTime.Add(testLife), KeyUsage: x509.KeyUsageCertSign,
		PermittedDNSDomains: names, PermittedDNSDomainsCritical: true,
	}
	for _, apply := range change {
		apply(template)
	}
	der := must.Get[[]byte](t)(x509.CreateCertificate(rand.Reader, template, r.certificate, key.Public(), r.key))
	private := must.Get[[]byte](t)(x509.MarshalPKCS8PrivateKey(key))
	return pair{
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
	}
}

func authorityFile(t testing.TB, pairs ...pair) []byte {
	t.Helper()
	return must.Get[[]byte](t)(json.Marshal(map[string][]pair{"intermediates": pairs}))
}

// verify fails unless a chain is valid for a name at a time, and returns its first certificate.
func (r testRoot) verify(t testing.TB, chain []byte, name string, now time.Time) *x509.Certificate {
	t.Helper()
	first, rest := pem.Decode(chain)
	if first == nil {
		t.Fatal("the chain is no PEM")
	}
	got := must.Get[*x509.Certificate](t)(x509.ParseCertificate(first.Bytes))
	options := x509.VerifyOptions{DNSName: name, Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: now}
	options.Roots.AddCert(r.certificate)
	options.Intermediates.AppendCertsFromPEM(rest)
	if _, err := got.Verify(options); err != nil {
		t.Fatalf("%s at %s: %v", name, now, err)
	}
	return got
}

// A certificate is only for its name, leads to the root, is valid from an hour ago for 7 days, and is due after
// two thirds.
func TestMint(t *testing.T) {
	root := newTestRoot(t)
	authority := must.Get[authority](t)(parseAuthority(authorityFile(t, root.intermediate(t, []string{"w.test"}))))
	made := must.Get[issued](t)(authority.covering("x.w.test").mint("x.w.test", "x.w.test", testTime))
	answer := parseAnswer(t, response("x.w.test", made.version, "1", made.secret))
	for _, now := range []time.Time{testTime.Add(-time.Hour), testTime, testTime.Add(leafLife - time.Second)} {
		got := root.verify(t, answer.chain, "x.w.test", now)
		if len(got.DNSNames) != 1 || got.IsCA || len(got.ExtKeyUsage) != 1 || got.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth {
			t.Errorf("it says %q, %t, %v", got.DNSNames, got.IsCA, got.ExtKeyUsage)
		}
		key, _ := pem.Decode(answer.key)
		private := must.Get[any](t)(x509.ParsePKCS8PrivateKey(key.Bytes))
		if !private.(*ecdsa.PrivateKey).PublicKey.Equal(got.PublicKey) {
			t.Error("its key is another one")
		}
	}
	if want := testTime.Add(leafLife * 2 / 3); !made.due.Equal(want) {
		t.Errorf("it is due at %s instead of %s", made.due, want)
	}
}

// No certificate outlives its intermediate, and an expired intermediate issues none. Such a certificate is never
// due: another would end as soon.
func TestMintWithinTheIntermediate(t *testing.T) {
	root := newTestRoot(t)
	authority := must.Get[authority](t)(parseAuthority(authorityFile(t, root.intermediate(t, []string{"w.test"}))))
	issuer := authority.covering("w.test")
	late := testTime.Add(testLife - time.Hour)
	made := must.Get[issued](t)(issuer.mint("w.test", "w.test", late))
	answer := parseAnswer(t, response("w.test", made.version, "1", made.secret))
	if got := root.verify(t, answer.chain, "w.test", late); !got.NotAfter.Equal(issuer.certificate.NotAfter) || !made.due.IsZero() {
		t.Errorf("it ends at %s, and is due at %s", got.NotAfter, made.due)
	}
	for _, now := range []time.Time{testTime.Add(-2 * time.Hour), testTime.Add(testLife)} {
		if _, err := issuer.mint("w.test", "w.test", now); err == nil {
			t.Errorf("one was made at %s", now)
		}
	}
}

// The intermediate with the nearest name signs, and among several for the same name the one that ends last.
func TestCovering(t *testing.T) {
	root := newTestRoot(t)
	later := func(days int) func(*x509.Certificate) {
		return func(template *x509.Certificate) { template.NotAfter = testTime.AddDate(0, 0, days) }
	}
	authority := must.Get[authority](t)(parseAuthority(authorityFile(
		t, root.intermediate(t, []string{"w.test", "one.test"}, later(10)), root.intermediate(t, []string{"sub.w.test"}, later(20)),
		root.intermediate(t, []string{"one.test"}, later(30)),
	)))
	for name, want := range map[string]int{"w.test": 10, "a.w.test": 10, "sub.w.test": 20, "a.b.sub.w.test": 20, "one.test": 30, "xw.test": 0, "test": 0} {
		got := authority.covering(name)
		if (got == nil) != (want == 0) || got != nil && !got.certificate.NotAfter.Equal(testTime.AddDate(0, 0, want)) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// An unconstrained CA is refused, with the whole file.
func TestParseAuthorityRefuses(t *testing.T) {
	root := newTestRoot(t)
	names := []string{"w.test"}
	good, other := root.intermediate(t, names), root.intermediate(t, names)
	changed := func(change func(*x509.Certificate)) pair { return root.intermediate(t, names, change) }
	for what, content := range map[string]string{
		"no JSON":           `{`,
		"an unknown field":  `{"intermediate": []}`,
		"more than a value": `{"intermediates": []} {}`,
		"no PEM":            string(authorityFile(t, pair{"x", good.Key})),
		"no certificate":    string(authorityFile(t, pair{good.Key, good.Key})),
		"no key":            string(authorityFile(t, pair{good.Certificate, good.Certificate})),
		"another's key":     string(authorityFile(t, good, pair{good.Certificate, other.Key})),
		"no constraints":    string(authorityFile(t, changed(func(c *x509.Certificate) { c.PermittedDNSDomains = nil }))),
		"uncritical ones":   string(authorityFile(t, changed(func(c *x509.Certificate) { c.PermittedDNSDomainsCritical = false }))),
		"constrained to ''": string(authorityFile(t, changed(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{""} }))),
		"an upper case one": string(authorityFile(t, changed(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"W.test"} }))),
		"a longer path":     string(authorityFile(t, changed(func(c *x509.Certificate) { c.MaxPathLenZero = false; c.MaxPathLen = 1 }))),
		"a leaf":            string(authorityFile(t, changed(func(c *x509.Certificate) { c.IsCA, c.MaxPathLenZero = false, false }))),
	} {
		if _, err := parseAuthority([]byte(content)); err == nil || strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got, err := parseAuthority([]byte(`{"intermediates":[]}`)); err != nil || got.covering("w.test") != nil {
		t.Errorf("none: %v, %v", got, err)
	}
}
