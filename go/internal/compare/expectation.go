// Package compare finds what is there and not expected, and what is expected and missing.
package compare

import "slices"

// Expectation holds the items that must be present, and those that may be.
type Expectation struct {
	required map[string]bool
	optional map[string]bool
}

// Expect returns an expectation of texts that must be there.
func Expect(texts ...string) *Expectation {
	expected := &Expectation{map[string]bool{}, map[string]bool{}}
	expected.Add(texts...)
	return expected
}

func (e *Expectation) Add(texts ...string) {
	for _, text := range texts {
		e.required[text] = true
	}
}

func (e *Expectation) Allow(texts ...string) {
	for _, text := range texts {
		e.optional[text] = true
	}
}

// Differences returns a sentence for each text that was found and not expected, and for each that is missing.
func (e *Expectation) Differences(found []string) []string {
	var differences []string
	for _, text := range found {
		if !e.required[text] && !e.optional[text] {
			differences = append(differences, text+" is not ours")
		}
	}
	for text := range e.required {
		if !slices.Contains(found, text) {
			differences = append(differences, text+" is missing")
		}
	}
	return differences
}
