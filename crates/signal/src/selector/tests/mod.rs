mod language;
mod masks;
mod model;
