// Package compare finds what is there and not expected, and what is expected and missing.
package compare

import "slices"

// Expectation has the texts that may be there, and says which of them must be.
type Expectation map[string]bool

// Expect returns an expectation of texts that must be there.
func Expect(texts ...string) Expectation {
	expected := Expectation{}
	expected.Add(texts...)
	return expected
}

func (e Expectation) Add(texts ...string) {
	for _, text := range texts {
		e[text] = true
	}
}

// Allow adds texts that may be there.
func (e Expectation) Allow(texts ...string) {
	for _, text := range texts {
		e[text] = e[text]
	}
}

// Differences returns a sentence for each text that was found and not expected, and for each that is missing.
func (e Expectation) Differences(found []string) []string {
	var differences []string
	for _, text := range found {
		if _, expected := e[text]; !expected {
			differences = append(differences, text+" is not ours")
		}
	}
	for text, required := range e {
		if required && !slices.Contains(found, text) {
			differences = append(differences, text+" is missing")
		}
	}
	return differences
}
