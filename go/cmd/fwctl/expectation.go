package main

import "slices"

// expectation holds the items that must be present, and those that may be.
type expectation struct {
	required map[string]bool
	optional map[string]bool
}

func expecting(texts ...string) *expectation {
	expected := &expectation{map[string]bool{}, map[string]bool{}}
	expected.add(texts...)
	return expected
}

func (e *expectation) add(texts ...string) {
	for _, text := range texts {
		e.required[text] = true
	}
}

func (e *expectation) allow(texts ...string) {
	for _, text := range texts {
		e.optional[text] = true
	}
}

func (e *expectation) differences(found []string) []string {
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
