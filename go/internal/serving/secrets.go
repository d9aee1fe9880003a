package serving

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"clawker-fw/internal/signing"
)

// The signer says which secrets for requests it has. Whether Envoy uses these is another question: it goes on using what it was
// given before if its stream is broken, and a secret that was taken away. Envoy shows the version of each that it has loaded,
// and never its value.

// usesWithin is how long Envoy may take to load what the signer has: it is told within 50 ms.
const (
	usesWithin    = 4 * time.Second
	askUsageAgain = 50 * time.Millisecond
)

// Used is what the signer has, and the ids of those of which Envoy uses another version, or none.
type Used struct {
	signing.Held
	Unloaded []string `json:"unloaded"`
}

// UsedSecrets has the signer say what it has, until Envoy uses just that or the time is over. Envoy subscribes to some ids alone.
//
// The signer is asked before Envoy is, each time: where both name the same version of all, Envoy has loaded what the signer
// answers for, also while somebody gives others. Only what differs to the end is reported. An Envoy that does not answer has
// loaded nothing.
func UsedSecrets(socket string, subscribed []string, ask func() (signing.Held, error)) (Used, error) {
	return usedSecrets(NewEnvoy(socket, nil).secretVersions, subscribed, ask, usesWithin)
}

func usedSecrets(versions func() (map[string]string, error), subscribed []string, ask func() (signing.Held, error), within time.Duration) (Used, error) {
	for until := time.Now().Add(within); ; time.Sleep(askUsageAgain) {
		held, err := ask()
		if err != nil {
			return Used{Held: held}, err
		}
		loaded, err := versions()
		if err != nil {
			loaded = nil
		}
		unloaded := slices.DeleteFunc(slices.Clone(subscribed), func(id string) bool {
			version, there := loaded[id]
			return version == held.Version(id) || !there && err == nil && held.Version(id) == signing.NoVersion
		})
		if len(unloaded) == 0 || time.Now().After(until) {
			return Used{held, unloaded}, nil
		}
	}
}

// secretVersions returns the version of each secret for requests that Envoy has loaded, by id.
func (e envoy) secretVersions() (map[string]string, error) {
	pattern := url.QueryEscape(signing.SecretPrefix + ".*") // of the whole name: there are as many others as server names
	var dump struct {
		Configs []struct {
			Name    string `json:"name"`
			Version string `json:"version_info"`
		} `json:"configs"`
	}
	if err := e.read("/config_dump?resource=dynamic_active_secrets&name_regex="+pattern, &dump); err != nil {
		return nil, err
	}
	found := map[string]string{}
	for _, each := range dump.Configs {
		if id, is := strings.CutPrefix(each.Name, signing.SecretPrefix); is {
			found[id] = each.Version
		}
	}
	return found, nil
}
