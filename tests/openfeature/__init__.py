"""The provider of OpenFeature, asked by the client of its SDK."""
