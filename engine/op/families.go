package op

// families is every operator family, one file each.
var families = [][]Def{}
