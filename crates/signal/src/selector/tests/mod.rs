mod language;
mod masks;
mod model;
mod queries;
mod whole;
